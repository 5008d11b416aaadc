CREATE VIEW oblivion.daily_calls_drift WITH (security_invoker = true) AS
SELECT
  call_date,
  sum(calls)::bigint AS calls,
  sum(turn_calls)::bigint AS turn_calls,
  sum(video_calls)::bigint AS video_calls,
  sum(voice_calls)::bigint AS voice_calls,
  sum(credits) AS credits,
  sum(credits_unknown)::bigint AS credits_unknown,
  sum(ended_calls)::bigint AS ended_calls,
  sum(seconds) AS seconds
FROM (
  SELECT
    a.call_date,
    a.calls,
    a.turn_calls,
    a.video_calls,
    a.voice_calls,
    a.credits,
    a.credits_unknown,
    a.ended_calls,
    a.seconds
  FROM public.call_sessions AS c
  CROSS JOIN LATERAL oblivion.call_amounts(c.start_time, c.end_time, c.mode, c.used_turn, c.credit_cost) AS a
  UNION ALL
  SELECT
    call_date, -calls, -turn_calls, -video_calls, -voice_calls, -credits, -credits_unknown, -ended_calls, -seconds
  FROM (
    SELECT * FROM oblivion.daily_calls
    UNION ALL
    SELECT * FROM oblivion.call_deltas
  ) AS rolled_up
) AS amounts
GROUP BY call_date
HAVING (
  sum(calls), sum(turn_calls), sum(video_calls), sum(voice_calls),
  sum(credits), sum(credits_unknown), sum(ended_calls), sum(seconds)
) <> (0, 0, 0, 0, 0, 0, 0, 0);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.daily_calls_drift FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.daily_calls_drift FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

GRANT SELECT ON TABLE oblivion.daily_calls_drift TO PUBLIC;

COMMENT ON VIEW oblivion.daily_calls_drift IS
  'Differences between the roll-up of calls and the rows of call_sessions; empty if there are none.';
COMMENT ON COLUMN oblivion.daily_calls_drift.call_date IS 'UTC day on which the calls began.';
COMMENT ON COLUMN oblivion.daily_calls_drift.calls IS 'Number of calls.';
COMMENT ON COLUMN oblivion.daily_calls_drift.turn_calls IS 'Calls that a TURN relay carried.';
COMMENT ON COLUMN oblivion.daily_calls_drift.video_calls IS 'Video calls.';
COMMENT ON COLUMN oblivion.daily_calls_drift.voice_calls IS 'Voice-only calls.';
COMMENT ON COLUMN oblivion.daily_calls_drift.credits IS 'Sum of credit_cost, without NaN.';
COMMENT ON COLUMN oblivion.daily_calls_drift.credits_unknown IS 'Calls whose credit_cost is NaN.';
COMMENT ON COLUMN oblivion.daily_calls_drift.ended_calls IS 'Calls that ended, and have a finite length.';
COMMENT ON COLUMN oblivion.daily_calls_drift.seconds IS 'Sum of these lengths in seconds.';
