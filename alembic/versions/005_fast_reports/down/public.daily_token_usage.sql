CREATE VIEW public.daily_token_usage WITH (security_invoker = true) AS
SELECT
  (token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date AS usage_date,
  token_usage.mode,
  token_usage.used_turn,
  count(*) AS session_count,
  sum(token_usage.tokens_used) AS total_tokens,
  avg(token_usage.tokens_used) AS avg_tokens_per_session,
  COALESCE(sum(token_usage.duration_seconds), 0::bigint)::numeric / 60.0 AS total_minutes
FROM public.token_usage
GROUP BY ((token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date), token_usage.mode, token_usage.used_turn
ORDER BY ((token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date) DESC, token_usage.mode, token_usage.used_turn;

DO $$
BEGIN
  REVOKE ALL ON TABLE public.daily_token_usage FROM PUBLIC CASCADE;
  IF to_regrole('anon') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.daily_token_usage FROM anon CASCADE;
    IF oblivion.open_access() THEN
      GRANT SELECT ON TABLE public.daily_token_usage TO anon;
    END IF;
  END IF;
  IF to_regrole('authenticated') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.daily_token_usage FROM authenticated CASCADE;
    GRANT SELECT ON TABLE public.daily_token_usage TO authenticated;
  END IF;
  IF to_regrole('service_role') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.daily_token_usage FROM service_role CASCADE;
    GRANT SELECT ON TABLE public.daily_token_usage TO service_role;
  END IF;
END
$$;

COMMENT ON VIEW public.daily_token_usage IS 'Usage by UTC day, mode and TURN, newest day first.';
COMMENT ON COLUMN public.daily_token_usage.usage_date IS 'UTC day on which the usage was logged.';
COMMENT ON COLUMN public.daily_token_usage.mode IS 'voice or video.';
COMMENT ON COLUMN public.daily_token_usage.used_turn IS 'Whether the TURN rate applied.';
COMMENT ON COLUMN public.daily_token_usage.session_count IS 'Rows of token_usage.';
COMMENT ON COLUMN public.daily_token_usage.total_tokens IS 'Sum of tokens_used.';
COMMENT ON COLUMN public.daily_token_usage.avg_tokens_per_session IS 'Mean of tokens_used.';
COMMENT ON COLUMN public.daily_token_usage.total_minutes IS
  'Sum of the lengths in minutes; an unknown length counts as 0.';
