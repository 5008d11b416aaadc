CREATE TABLE oblivion.daily_calls (
  call_date date NOT NULL,
  calls bigint NOT NULL,
  turn_calls bigint NOT NULL,
  video_calls bigint NOT NULL,
  voice_calls bigint NOT NULL,
  credits numeric NOT NULL,
  credits_unknown bigint NOT NULL,
  ended_calls bigint NOT NULL,
  seconds numeric NOT NULL,
  CONSTRAINT daily_calls_pkey PRIMARY KEY (call_date)
);
