CREATE OR REPLACE VIEW public.user_token_summary WITH (security_invoker = true) AS
SELECT
  a.user_id,
  a.tokens_remaining,
  a.subscription_tier,
  a.created_at AS account_created,
  COALESCE(u.tokens, 0::numeric)::bigint AS total_tokens_used,
  COALESCE(u.sessions, 0::numeric)::bigint AS total_sessions,
      CASE
          WHEN u.has_lost_rows THEN ( SELECT max(t."timestamp") AS max
             FROM public.token_usage t
            WHERE t.user_id = a.user_id)
          ELSE u.last_usage
      END AS last_usage
FROM public.user_accounts a
LEFT JOIN ( SELECT amounts.user_id,
          sum(amounts.sessions) AS sessions,
          sum(amounts.tokens) AS tokens,
          max(amounts.last_usage) AS last_usage,
          bool_or(amounts.has_lost_rows) AS has_lost_rows
         FROM ( SELECT token_usage.user_id,
                  1::bigint AS sessions,
                  token_usage.tokens_used::bigint AS tokens,
                  token_usage."timestamp" AS last_usage,
                  false AS has_lost_rows
                 FROM public.token_usage
                WHERE NOT oblivion.open_access() AND NOT (EXISTS ( SELECT
                         FROM oblivion.sees_all))
              UNION ALL
               SELECT user_usage.user_id,
                  user_usage.sessions,
                  user_usage.tokens,
                  user_usage.last_usage,
                  user_usage.has_lost_rows
                 FROM oblivion.user_usage
                WHERE oblivion.open_access() OR (EXISTS ( SELECT
                         FROM oblivion.sees_all))
              UNION ALL
               SELECT usage_deltas.user_id,
                  usage_deltas.sessions,
                  usage_deltas.tokens,
                  usage_deltas.last_usage,
                  usage_deltas.has_lost_rows
                 FROM oblivion.usage_deltas
                WHERE usage_deltas.user_id IS NOT NULL AND (oblivion.open_access() OR (EXISTS ( SELECT
                         FROM oblivion.sees_all)))) amounts
        GROUP BY amounts.user_id) u ON u.user_id = a.user_id;
