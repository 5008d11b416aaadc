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

ALTER TABLE oblivion.call_segments
  ADD CONSTRAINT call_segments_session_id_fkey FOREIGN KEY (session_id) REFERENCES oblivion.call_meters(session_id) ON DELETE CASCADE;

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.call_segments FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.call_segments FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

COMMENT ON TABLE oblivion.call_segments IS
  'The past segments of metered calls: spans at one rate, each with a row of usage.';
COMMENT ON COLUMN oblivion.call_segments.session_id IS 'The call.';
COMMENT ON COLUMN oblivion.call_segments.number IS 'From 1, in the call''s order.';
COMMENT ON COLUMN oblivion.call_segments.usage_id IS 'Its row of token_usage, once it has one.';
COMMENT ON COLUMN oblivion.call_segments.used_turn IS 'Whether the TURN rate applies.';
COMMENT ON COLUMN oblivion.call_segments.tokens_per_minute IS 'Tokens for each of its started minutes.';
COMMENT ON COLUMN oblivion.call_segments.rate_from IS 'The date of that rate.';
COMMENT ON COLUMN oblivion.call_segments.first_minute IS 'Minutes of the call before it.';
COMMENT ON COLUMN oblivion.call_segments.minutes IS 'Its minutes.';
COMMENT ON COLUMN oblivion.call_segments.seconds IS 'Its length in seconds.';
COMMENT ON COLUMN oblivion.call_segments.due_before IS 'Tokens that the minutes before it cost.';
COMMENT ON COLUMN oblivion.call_segments.due_after IS 'Tokens that they cost with its own.';
COMMENT ON COLUMN oblivion.call_segments.shortfall IS
  'Tokens that were due in it while the balance did not cover them.';
