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

ALTER TABLE oblivion.call_deltas REPLICA IDENTITY FULL;

ALTER TABLE oblivion.call_deltas ENABLE ROW LEVEL SECURITY;

CREATE POLICY call_deltas_select ON oblivion.call_deltas FOR SELECT TO public
  USING (oblivion.open_access() OR oblivion.is_service_role());

CREATE POLICY call_deltas_insert ON oblivion.call_deltas FOR INSERT TO public WITH CHECK (false);

CREATE POLICY call_deltas_update ON oblivion.call_deltas FOR UPDATE TO public
  USING (false)
  WITH CHECK (false);

CREATE POLICY call_deltas_delete ON oblivion.call_deltas FOR DELETE TO public USING (false);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.call_deltas FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.call_deltas FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

GRANT SELECT ON TABLE oblivion.call_deltas TO PUBLIC;

COMMENT ON TABLE oblivion.call_deltas IS 'Changes of calls that are not yet folded into daily_calls.';
COMMENT ON COLUMN oblivion.call_deltas.call_date IS 'UTC day on which the calls began.';
COMMENT ON COLUMN oblivion.call_deltas.calls IS 'Number of calls.';
COMMENT ON COLUMN oblivion.call_deltas.turn_calls IS 'Calls that a TURN relay carried.';
COMMENT ON COLUMN oblivion.call_deltas.video_calls IS 'Video calls.';
COMMENT ON COLUMN oblivion.call_deltas.voice_calls IS 'Voice-only calls.';
COMMENT ON COLUMN oblivion.call_deltas.credits IS 'Sum of credit_cost, without NaN.';
COMMENT ON COLUMN oblivion.call_deltas.credits_unknown IS 'Calls whose credit_cost is NaN.';
COMMENT ON COLUMN oblivion.call_deltas.ended_calls IS 'Calls that ended, and have a finite length.';
COMMENT ON COLUMN oblivion.call_deltas.seconds IS 'Sum of these lengths in seconds.';
