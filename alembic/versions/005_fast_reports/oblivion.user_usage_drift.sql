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
  'Differences between the roll-up of accounts and the rows of token_usage; empty if there are none.';
COMMENT ON COLUMN oblivion.user_usage_drift.user_id IS 'The account.';
COMMENT ON COLUMN oblivion.user_usage_drift.sessions IS 'Rows that the roll-up lacks; negative if it has too many.';
COMMENT ON COLUMN oblivion.user_usage_drift.tokens IS 'Tokens that the roll-up lacks; negative if it has too many.';
COMMENT ON COLUMN oblivion.user_usage_drift.last_usage IS 'Newest timestamp of the rows.';
COMMENT ON COLUMN oblivion.user_usage_drift.has_lost_rows IS 'Whether last_usage of the roll-up is later than that.';
