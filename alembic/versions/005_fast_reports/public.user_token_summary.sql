CREATE OR REPLACE VIEW public.user_token_summary WITH (security_invoker = true) AS
SELECT
  a.user_id,
  a.tokens_remaining,
  a.subscription_tier,
  a.created_at AS account_created,
  CASE
    WHEN EXISTS (SELECT FROM oblivion.backfills WHERE name = 'usage')
      THEN (SELECT c.tokens FROM oblivion.count_usage(a.user_id) AS c)
    ELSE coalesce(u.tokens, 0)::bigint
  END AS total_tokens_used,
  CASE
    WHEN EXISTS (SELECT FROM oblivion.backfills WHERE name = 'usage')
      THEN (SELECT c.sessions FROM oblivion.count_usage(a.user_id) AS c)
    ELSE coalesce(u.sessions, 0)::bigint
  END AS total_sessions,
  CASE
    WHEN EXISTS (SELECT FROM oblivion.backfills WHERE name = 'usage')
      THEN (SELECT c.last_usage FROM oblivion.count_usage(a.user_id) AS c)
    WHEN u.has_lost_rows THEN (SELECT max(t."timestamp") FROM public.token_usage AS t WHERE t.user_id = a.user_id)
    ELSE u.last_usage
  END AS last_usage
FROM public.user_accounts AS a
LEFT JOIN (
  SELECT
    user_id,
    sum(sessions) AS sessions,
    sum(tokens) AS tokens,
    max(last_usage) AS last_usage,
    bool_or(has_lost_rows) AS has_lost_rows
  FROM (
    SELECT
      user_id,
      1::bigint AS sessions,
      tokens_used::bigint AS tokens,
      "timestamp" AS last_usage,
      false AS has_lost_rows
    FROM public.token_usage
    WHERE NOT oblivion.open_access() AND NOT oblivion.is_service_role()
      AND row_security_active('oblivion.user_usage'::regclass)
    UNION ALL
    SELECT user_id, sessions, tokens, last_usage, has_lost_rows
    FROM oblivion.user_usage
    WHERE oblivion.open_access() OR oblivion.is_service_role()
      OR NOT row_security_active('oblivion.user_usage'::regclass)
    UNION ALL
    SELECT user_id, sessions, tokens, last_usage, has_lost_rows
    FROM oblivion.usage_deltas
    WHERE user_id IS NOT NULL
      AND (
        oblivion.open_access() OR oblivion.is_service_role()
        OR NOT row_security_active('oblivion.user_usage'::regclass)
      )
  ) AS amounts
  GROUP BY user_id
) AS u ON u.user_id = a.user_id;
