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

DO $$
BEGIN
  REVOKE ALL ON TABLE public.daily_billing_summary FROM PUBLIC CASCADE;
  IF to_regrole('anon') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.daily_billing_summary FROM anon CASCADE;
    IF oblivion.open_access() THEN
      GRANT SELECT ON TABLE public.daily_billing_summary TO anon;
    END IF;
  END IF;
  IF to_regrole('authenticated') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.daily_billing_summary FROM authenticated CASCADE;
    GRANT SELECT ON TABLE public.daily_billing_summary TO authenticated;
  END IF;
  IF to_regrole('service_role') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.daily_billing_summary FROM service_role CASCADE;
    GRANT SELECT ON TABLE public.daily_billing_summary TO service_role;
  END IF;
END
$$;

COMMENT ON VIEW public.daily_billing_summary IS 'Calls by the UTC day on which they began, newest day first.';
COMMENT ON COLUMN public.daily_billing_summary.call_date IS 'UTC day on which the calls began.';
COMMENT ON COLUMN public.daily_billing_summary.total_calls IS 'Calls that began on that day.';
COMMENT ON COLUMN public.daily_billing_summary.turn_calls IS 'Calls that a TURN relay carried.';
COMMENT ON COLUMN public.daily_billing_summary.video_calls IS 'Video calls.';
COMMENT ON COLUMN public.daily_billing_summary.voice_calls IS 'Voice-only calls.';
COMMENT ON COLUMN public.daily_billing_summary.total_credits IS 'Sum of credit_cost.';
COMMENT ON COLUMN public.daily_billing_summary.avg_duration_minutes IS
  'Mean length in minutes of the calls that ended; NULL if none did.';
