CREATE TABLE oblivion.daily_usage (
  usage_date date NOT NULL,
  mode text NOT NULL,
  used_turn boolean NOT NULL,
  sessions bigint NOT NULL,
  tokens bigint NOT NULL,
  seconds bigint NOT NULL,
  CONSTRAINT daily_usage_pkey PRIMARY KEY (usage_date, mode, used_turn)
);
