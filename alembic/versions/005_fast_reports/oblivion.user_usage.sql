CREATE TABLE oblivion.user_usage (
  user_id text NOT NULL,
  sessions bigint NOT NULL,
  tokens bigint NOT NULL,
  last_usage timestamp with time zone,
  has_lost_rows boolean NOT NULL,
  CONSTRAINT user_usage_pkey PRIMARY KEY (user_id)
)
WITH (fillfactor = 50);
