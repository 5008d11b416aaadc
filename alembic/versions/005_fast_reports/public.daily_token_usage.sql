CREATE OR REPLACE VIEW public.daily_token_usage WITH (security_invoker = true) AS
SELECT
  amounts.usage_date,
  amounts.mode,
  amounts.used_turn,
  sum(amounts.sessions)::bigint AS session_count,
  sum(amounts.tokens)::bigint AS total_tokens,
  sum(amounts.tokens) / sum(amounts.sessions) AS avg_tokens_per_session,
  sum(amounts.seconds) / 60.0 AS total_minutes
FROM ( SELECT (token_usage."timestamp" AT TIME ZONE 'UTC'::text)::date AS usage_date,
          token_usage.mode,
          token_usage.used_turn,
          1::bigint AS sessions,
          token_usage.tokens_used::bigint AS tokens,
          COALESCE(token_usage.duration_seconds, 0)::bigint AS seconds
         FROM public.token_usage
        WHERE NOT oblivion.open_access() AND NOT (EXISTS ( SELECT
                 FROM oblivion.sees_all))
      UNION ALL
       SELECT daily_usage.usage_date,
          daily_usage.mode,
          daily_usage.used_turn,
          daily_usage.sessions,
          daily_usage.tokens,
          daily_usage.seconds
         FROM oblivion.daily_usage
        WHERE oblivion.open_access() OR (EXISTS ( SELECT
                 FROM oblivion.sees_all))
      UNION ALL
       SELECT usage_deltas.usage_date,
          usage_deltas.mode,
          usage_deltas.used_turn,
          usage_deltas.sessions,
          usage_deltas.tokens,
          usage_deltas.seconds
         FROM oblivion.usage_deltas
        WHERE usage_deltas.usage_date IS NOT NULL AND (oblivion.open_access() OR (EXISTS ( SELECT
                 FROM oblivion.sees_all)))) amounts
GROUP BY amounts.usage_date, amounts.mode, amounts.used_turn
HAVING sum(amounts.sessions) <> 0::numeric
ORDER BY amounts.usage_date DESC, amounts.mode, amounts.used_turn;
