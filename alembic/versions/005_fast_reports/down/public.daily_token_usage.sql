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
