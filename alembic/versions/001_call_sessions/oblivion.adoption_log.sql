CREATE TABLE IF NOT EXISTS oblivion.adoption_log (
  id bigint GENERATED ALWAYS AS IDENTITY,
  kind text NOT NULL,
  name text NOT NULL,
  why text NOT NULL,
  was json,
  logged_at timestamptz DEFAULT now() NOT NULL,
  CONSTRAINT adoption_log_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE oblivion.adoption_log IS
  'What upgrades found in tables that were made by hand, and what became of it.';
COMMENT ON COLUMN oblivion.adoption_log.id IS 'Identifier of the entry.';
COMMENT ON COLUMN oblivion.adoption_log.kind IS
  'table: taken over; renamed, filled, row, not valid, forced: what the upgrade did; otherwise the kind of an object '
  'that is not ours.';
COMMENT ON COLUMN oblivion.adoption_log.name IS 'Name of the object.';
COMMENT ON COLUMN oblivion.adoption_log.why IS 'What was done, and why.';
COMMENT ON COLUMN oblivion.adoption_log.was IS
  'The row that was moved here, or the definition of the object that is not ours.';
COMMENT ON COLUMN oblivion.adoption_log.logged_at IS 'When the upgrade began.';
