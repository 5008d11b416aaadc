CREATE VIEW public.daily_token_usage WITH (security_invoker = true) AS
SELECT
  usage_date,
  mode,
  used_turn,
  sum(sessions)::bigint AS session_count,
  sum(tokens)::bigint AS total_tokens,
  sum(tokens) / sum(sessions) AS avg_tokens_per_session,
  sum(seconds) / 60.0 AS total_minutes
FROM (
  SELECT
    ("timestamp" AT TIME ZONE 'UTC')::date AS usage_date,
    mode,
    used_turn,
    1::bigint AS sessions,
    tokens_used::bigint AS tokens,
    coalesce(duration_seconds, 0)::bigint AS seconds
  FROM public.token_usage
  WHERE NOT oblivion.open_access() AND NOT oblivion.is_service_role()
    AND row_security_active('oblivion.daily_usage'::regclass)
  UNION ALL
  SELECT usage_date, mode, used_turn, sessions, tokens, seconds
  FROM oblivion.daily_usage
  WHERE oblivion.open_access() OR oblivion.is_service_role()
    OR NOT row_security_active('oblivion.daily_usage'::regclass)
  UNION ALL
  SELECT usage_date, mode, used_turn, sessions, tokens, seconds
  FROM oblivion.usage_deltas
  WHERE usage_date IS NOT NULL
    AND (
      oblivion.open_access() OR oblivion.is_service_role()
      OR NOT row_security_active('oblivion.daily_usage'::regclass)
    )
  UNION ALL
  SELECT usage_date, mode, used_turn, sessions, tokens, seconds
  FROM oblivion.missing_usage()
  WHERE EXISTS (SELECT FROM oblivion.backfills WHERE name = 'usage')
    AND (
      oblivion.open_access() OR oblivion.is_service_role()
      OR NOT row_security_active('oblivion.daily_usage'::regclass)
    )
) AS amounts
GROUP BY usage_date, mode, used_turn
HAVING sum(sessions) <> 0
ORDER BY usage_date DESC, mode, used_turn;

COMMENT ON VIEW public.daily_token_usage IS 'Usage by UTC day, mode and TURN, newest day first.';
