CREATE VIEW oblivion.user_usage_drift WITH (security_invoker = true) AS
SELECT
  amounts.user_id,
  sum(amounts.sessions)::bigint AS sessions,
  sum(amounts.tokens)::bigint AS tokens,
  max(amounts.newest) AS last_usage,
  NOT bool_or(amounts.has_lost_rows) AND COALESCE(max(amounts.last_usage) > max(amounts.newest), max(amounts.newest) IS NULL) AS has_lost_rows
FROM ( SELECT token_usage.user_id,
          count(*) AS sessions,
          sum(token_usage.tokens_used) AS tokens,
          max(token_usage."timestamp") AS newest,
          NULL::timestamp with time zone AS last_usage,
          false AS has_lost_rows
         FROM public.token_usage
        GROUP BY token_usage.user_id
      UNION ALL
       SELECT user_usage.user_id,
          - user_usage.sessions,
          - user_usage.tokens,
          NULL::timestamp with time zone AS newest,
          user_usage.last_usage,
          user_usage.has_lost_rows
         FROM oblivion.user_usage
      UNION ALL
       SELECT usage_deltas.user_id,
          - usage_deltas.sessions,
          - usage_deltas.tokens,
          NULL::timestamp with time zone AS newest,
          usage_deltas.last_usage,
          usage_deltas.has_lost_rows
         FROM oblivion.usage_deltas
        WHERE usage_deltas.user_id IS NOT NULL) amounts
GROUP BY amounts.user_id
HAVING sum(amounts.sessions) <> 0::numeric OR sum(amounts.tokens) <> 0::numeric OR NOT bool_or(amounts.has_lost_rows) AND max(amounts.newest) IS DISTINCT FROM max(amounts.last_usage);
