CREATE VIEW public.daily_billing_summary WITH (security_invoker = true) AS
SELECT
  (start_time AT TIME ZONE 'UTC')::date AS call_date,
  count(*) AS total_calls,
  count(*) FILTER (WHERE used_turn) AS turn_calls,
  count(*) FILTER (WHERE mode = 'video') AS video_calls,
  count(*) FILTER (WHERE mode = 'voice-only') AS voice_calls,
  sum(credit_cost) AS total_credits,
  avg(extract(epoch FROM end_time - start_time) / 60) AS avg_duration_minutes
FROM public.call_sessions
GROUP BY call_date
ORDER BY call_date DESC;

COMMENT ON VIEW public.daily_billing_summary IS 'Calls by the UTC day on which they began, newest day first.';
COMMENT ON COLUMN public.daily_billing_summary.call_date IS 'UTC day on which the calls began.';
COMMENT ON COLUMN public.daily_billing_summary.total_calls IS 'Calls that began on that day.';
COMMENT ON COLUMN public.daily_billing_summary.turn_calls IS 'Calls that a TURN relay carried.';
COMMENT ON COLUMN public.daily_billing_summary.video_calls IS 'Video calls.';
COMMENT ON COLUMN public.daily_billing_summary.voice_calls IS 'Voice-only calls.';
COMMENT ON COLUMN public.daily_billing_summary.total_credits IS 'Sum of credit_cost.';
COMMENT ON COLUMN public.daily_billing_summary.avg_duration_minutes IS
  'Mean length in minutes of the calls that ended; NULL if none did.';
