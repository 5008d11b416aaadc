CREATE TABLE IF NOT EXISTS oblivion.adoption_log (
  id bigint GENERATED ALWAYS AS IDENTITY,
  kind text NOT NULL,
  name text NOT NULL,
  why text NOT NULL,
  was json,
  logged_at timestamptz DEFAULT now() NOT NULL,
  CONSTRAINT adoption_log_pkey PRIMARY KEY (id)
);
