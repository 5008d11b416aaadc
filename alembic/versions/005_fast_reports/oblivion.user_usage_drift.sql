CREATE VIEW oblivion.user_usage_drift WITH (security_invoker = true) AS
SELECT
  user_id,
  sum(sessions)::bigint AS sessions,
  sum(tokens)::bigint AS tokens,
  max(newest) AS last_usage,
  NOT bool_or(has_lost_rows) AND coalesce(max(last_usage) > max(newest), max(newest) IS NULL) AS has_lost_rows
FROM (
  SELECT
    user_id,
    count(*) AS sessions,
    sum(tokens_used) AS tokens,
    max("timestamp") AS newest,
    NULL::timestamptz AS last_usage,
    false AS has_lost_rows
  FROM public.token_usage
  GROUP BY user_id
  UNION ALL
  SELECT user_id, -sessions, -tokens, NULL::timestamptz AS newest, last_usage, has_lost_rows
  FROM oblivion.user_usage
  UNION ALL
  SELECT user_id, -sessions, -tokens, NULL::timestamptz AS newest, last_usage, has_lost_rows
  FROM oblivion.usage_deltas
  WHERE user_id IS NOT NULL
) AS amounts
GROUP BY user_id
HAVING sum(sessions) <> 0
  OR sum(tokens) <> 0
  OR NOT bool_or(has_lost_rows) AND max(newest) IS DISTINCT FROM max(last_usage);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.user_usage_drift FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.user_usage_drift FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

COMMENT ON VIEW oblivion.user_usage_drift IS
  'What the roll-up of accounts lacks against the rows of usage; no row where it is right.';
COMMENT ON COLUMN oblivion.user_usage_drift.user_id IS 'The account.';
COMMENT ON COLUMN oblivion.user_usage_drift.sessions IS 'Rows that are missing, or, below zero, too many.';
COMMENT ON COLUMN oblivion.user_usage_drift.tokens IS 'Tokens that are missing.';
COMMENT ON COLUMN oblivion.user_usage_drift.last_usage IS 'When it last used any.';
COMMENT ON COLUMN oblivion.user_usage_drift.has_lost_rows IS 'Whether the roll-up takes a later time for that.';
