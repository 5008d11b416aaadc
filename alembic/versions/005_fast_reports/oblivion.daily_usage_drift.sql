CREATE VIEW oblivion.daily_usage_drift WITH (security_invoker = true) AS
SELECT
  amounts.usage_date,
  amounts.mode,
  amounts.used_turn,
  sum(amounts.sessions)::bigint AS sessions,
  sum(amounts.tokens)::bigint AS tokens,
  sum(amounts.seconds)::bigint AS seconds
FROM ( SELECT (token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date AS usage_date,
          token_usage.mode,
          token_usage.used_turn,
          count(*) AS sessions,
          sum(token_usage.tokens_used) AS tokens,
          COALESCE(sum(token_usage.duration_seconds), 0::bigint) AS seconds
         FROM public.token_usage
        GROUP BY ((token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date), token_usage.mode, token_usage.used_turn
      UNION ALL
       SELECT daily_usage.usage_date,
          daily_usage.mode,
          daily_usage.used_turn,
          - daily_usage.sessions,
          - daily_usage.tokens,
          - daily_usage.seconds
         FROM oblivion.daily_usage
      UNION ALL
       SELECT usage_deltas.usage_date,
          usage_deltas.mode,
          usage_deltas.used_turn,
          - usage_deltas.sessions,
          - usage_deltas.tokens,
          - usage_deltas.seconds
         FROM oblivion.usage_deltas
        WHERE usage_deltas.usage_date IS NOT NULL) amounts
GROUP BY amounts.usage_date, amounts.mode, amounts.used_turn
HAVING sum(amounts.sessions) <> 0::numeric OR sum(amounts.tokens) <> 0::numeric OR sum(amounts.seconds) <> 0::numeric;
