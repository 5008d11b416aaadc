CREATE VIEW public.daily_token_usage WITH (security_invoker = true) AS
SELECT
  ("timestamp" AT TIME ZONE 'UTC')::date AS usage_date,
  mode,
  used_turn,
  count(*) AS session_count,
  sum(tokens_used) AS total_tokens,
  avg(tokens_used) AS avg_tokens_per_session,
  coalesce(sum(duration_seconds), 0) / 60.0 AS total_minutes
FROM public.token_usage
GROUP BY usage_date, mode, used_turn
ORDER BY usage_date DESC, mode, used_turn;

COMMENT ON VIEW public.daily_token_usage IS 'Usage by UTC day, mode and TURN, newest day first.';
COMMENT ON COLUMN public.daily_token_usage.usage_date IS 'UTC day on which the usage was logged.';
COMMENT ON COLUMN public.daily_token_usage.mode IS 'voice or video.';
COMMENT ON COLUMN public.daily_token_usage.used_turn IS 'Whether the TURN rate applied.';
COMMENT ON COLUMN public.daily_token_usage.session_count IS 'Rows of token_usage.';
COMMENT ON COLUMN public.daily_token_usage.total_tokens IS 'Sum of tokens_used.';
COMMENT ON COLUMN public.daily_token_usage.avg_tokens_per_session IS 'Mean of tokens_used.';
COMMENT ON COLUMN public.daily_token_usage.total_minutes IS
  'Sum of the lengths in minutes; an unknown length counts as 0.';
