CREATE TABLE oblivion.call_segments (
  session_id uuid NOT NULL,
  number integer NOT NULL,
  usage_id uuid,
  is_logged boolean NOT NULL,
  used_turn boolean NOT NULL,
  tokens_per_minute integer NOT NULL,
  rate_from timestamp with time zone NOT NULL,
  first_minute integer NOT NULL,
  minutes integer NOT NULL,
  seconds integer NOT NULL,
  due_before bigint NOT NULL,
  due_after bigint NOT NULL,
  shortfall integer NOT NULL,
  CONSTRAINT call_segments_pkey PRIMARY KEY (session_id, number)
);

ALTER TABLE oblivion.call_segments
  ADD CONSTRAINT call_segments_session_id_fkey FOREIGN KEY (session_id)
  REFERENCES oblivion.call_meters(session_id) ON DELETE CASCADE;

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
  'Past segments of metered calls: spans of minutes at one rate, each with its own row of token_usage.';
COMMENT ON COLUMN oblivion.call_segments.session_id IS 'The call.';
COMMENT ON COLUMN oblivion.call_segments.number IS 'Number of the segment in the call, from 1.';
COMMENT ON COLUMN oblivion.call_segments.usage_id IS
  'Id of the token_usage row of the segment; NULL if it could not be billed yet, or cost nothing.';
COMMENT ON COLUMN oblivion.call_segments.is_logged IS
  'Whether that row has all tokens of the segment; false if billing failed when it was over.';
COMMENT ON COLUMN oblivion.call_segments.used_turn IS 'Whether the TURN rate applies.';
COMMENT ON COLUMN oblivion.call_segments.tokens_per_minute IS 'Tokens for each started minute of the segment.';
COMMENT ON COLUMN oblivion.call_segments.rate_from IS 'When that rate took effect.';
COMMENT ON COLUMN oblivion.call_segments.first_minute IS 'Minutes of the call before the segment.';
COMMENT ON COLUMN oblivion.call_segments.minutes IS 'Minutes of the segment.';
COMMENT ON COLUMN oblivion.call_segments.seconds IS 'Length of the segment in seconds.';
COMMENT ON COLUMN oblivion.call_segments.due_before IS 'Tokens due for the minutes before the segment.';
COMMENT ON COLUMN oblivion.call_segments.due_after IS 'Tokens due for the minutes up to the end of the segment.';
COMMENT ON COLUMN oblivion.call_segments.shortfall IS 'Tokens due in the segment that the balance did not cover.';
