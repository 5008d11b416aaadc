CREATE TABLE oblivion.usage_deltas (
  user_id text,
  usage_date date,
  mode text,
  used_turn boolean,
  sessions bigint NOT NULL,
  tokens bigint NOT NULL,
  seconds bigint NOT NULL,
  last_usage timestamp with time zone,
  has_lost_rows boolean NOT NULL
)
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
