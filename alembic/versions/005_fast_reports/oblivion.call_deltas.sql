CREATE TABLE oblivion.call_deltas (
  call_date date NOT NULL,
  calls bigint NOT NULL,
  turn_calls bigint NOT NULL,
  video_calls bigint NOT NULL,
  voice_calls bigint NOT NULL,
  credits numeric NOT NULL,
  credits_unknown bigint NOT NULL,
  ended_calls bigint NOT NULL,
  seconds numeric NOT NULL
)
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
