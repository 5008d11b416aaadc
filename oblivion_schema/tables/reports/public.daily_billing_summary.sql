CREATE VIEW public.daily_billing_summary WITH (security_invoker = true) AS
SELECT
  call_date,
  sum(calls)::bigint AS total_calls,
  sum(turn_calls)::bigint AS turn_calls,
  sum(video_calls)::bigint AS video_calls,
  sum(voice_calls)::bigint AS voice_calls,
  CASE WHEN sum(credits_unknown) > 0 THEN 'NaN' ELSE sum(credits) END AS total_credits,
  sum(seconds) / (60 * nullif(sum(ended_calls), 0)) AS avg_duration_minutes
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
  WHERE NOT oblivion.open_access() AND NOT oblivion.is_service_role()
    AND row_security_active('oblivion.daily_calls'::regclass)
  UNION ALL
  SELECT call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
  FROM oblivion.daily_calls
  WHERE oblivion.open_access() OR oblivion.is_service_role()
    OR NOT row_security_active('oblivion.daily_calls'::regclass)
  UNION ALL
  SELECT call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
  FROM oblivion.call_deltas
  WHERE oblivion.open_access() OR oblivion.is_service_role()
    OR NOT row_security_active('oblivion.daily_calls'::regclass)
  UNION ALL
  SELECT call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
  FROM oblivion.missing_calls()
  WHERE EXISTS (SELECT FROM oblivion.backfills WHERE name = 'calls')
    AND (
      oblivion.open_access() OR oblivion.is_service_role()
      OR NOT row_security_active('oblivion.daily_calls'::regclass)
    )
) AS amounts
GROUP BY call_date
HAVING sum(calls) <> 0
ORDER BY call_date DESC;

COMMENT ON VIEW public.daily_billing_summary IS 'Calls by the UTC day on which they began, newest day first.';
