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

ALTER TABLE oblivion.daily_calls ENABLE ROW LEVEL SECURITY;

CREATE POLICY daily_calls_select ON oblivion.daily_calls FOR SELECT TO public
  USING (oblivion.open_access() OR oblivion.is_service_role());

CREATE POLICY daily_calls_insert ON oblivion.daily_calls FOR INSERT TO public WITH CHECK (false);

CREATE POLICY daily_calls_update ON oblivion.daily_calls FOR UPDATE TO public
  USING (false)
  WITH CHECK (false);

CREATE POLICY daily_calls_delete ON oblivion.daily_calls FOR DELETE TO public USING (false);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.daily_calls FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.daily_calls FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

GRANT SELECT ON TABLE oblivion.daily_calls TO PUBLIC;

COMMENT ON TABLE oblivion.daily_calls IS
  'Calls by the UTC day on which they began, without the changes that are still in call_deltas.';
COMMENT ON COLUMN oblivion.daily_calls.call_date IS 'UTC day on which the calls began.';
COMMENT ON COLUMN oblivion.daily_calls.calls IS 'Number of calls.';
COMMENT ON COLUMN oblivion.daily_calls.turn_calls IS 'Calls that a TURN relay carried.';
COMMENT ON COLUMN oblivion.daily_calls.video_calls IS 'Video calls.';
COMMENT ON COLUMN oblivion.daily_calls.voice_calls IS 'Voice-only calls.';
COMMENT ON COLUMN oblivion.daily_calls.credits IS 'Sum of credit_cost, without NaN.';
COMMENT ON COLUMN oblivion.daily_calls.credits_unknown IS 'Calls whose credit_cost is NaN.';
COMMENT ON COLUMN oblivion.daily_calls.ended_calls IS 'Calls that ended, and have a finite length.';
COMMENT ON COLUMN oblivion.daily_calls.seconds IS 'Sum of these lengths in seconds.';
