CREATE TABLE oblivion.call_segments (
  session_id uuid NOT NULL,
  number integer NOT NULL,
  usage_id uuid NOT NULL,
  used_turn boolean NOT NULL,
  tokens_per_minute integer NOT NULL,
  rate_from timestamp with time zone NOT NULL,
  first_minute integer NOT NULL,
  minutes integer NOT NULL,
  seconds integer NOT NULL,
  due_before bigint NOT NULL,
  due_after bigint NOT NULL,
  shortfall integer NOT NULL,
  CONSTRAINT call_segments_pkey PRIMARY KEY (session_id, number),
  CONSTRAINT call_segments_usage_id_key UNIQUE (usage_id)
);
