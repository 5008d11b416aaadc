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
COMMENT ON COLUMN oblivion.adoption_log.id IS 'The entry.';
COMMENT ON COLUMN oblivion.adoption_log.kind IS
  'table: taken over; renamed, filled, row, not valid, forced: what became of it; else what is not ours.';
COMMENT ON COLUMN oblivion.adoption_log.name IS 'Of what.';
COMMENT ON COLUMN oblivion.adoption_log.why IS 'What was done, and why.';
COMMENT ON COLUMN oblivion.adoption_log.was IS 'A row that was moved here; or how what is not ours was defined.';
COMMENT ON COLUMN oblivion.adoption_log.logged_at IS 'When the upgrade began.';
