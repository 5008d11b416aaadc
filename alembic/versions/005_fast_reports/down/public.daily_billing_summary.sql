CREATE VIEW public.daily_billing_summary WITH (security_invoker = true) AS
SELECT
  (call_sessions.start_time AT TIME ZONE 'UTC'::text)::date AS call_date,
  count(*) AS total_calls,
  count(*) FILTER (WHERE call_sessions.used_turn) AS turn_calls,
  count(*) FILTER (WHERE call_sessions.mode = 'video'::text) AS video_calls,
  count(*) FILTER (WHERE call_sessions.mode = 'voice-only'::text) AS voice_calls,
  sum(call_sessions.credit_cost) AS total_credits,
  avg(EXTRACT(epoch FROM call_sessions.end_time - call_sessions.start_time) / 60::numeric) AS avg_duration_minutes
FROM public.call_sessions
GROUP BY ((call_sessions.start_time AT TIME ZONE 'UTC'::text)::date)
ORDER BY ((call_sessions.start_time AT TIME ZONE 'UTC'::text)::date) DESC;
