CREATE VIEW oblivion.daily_usage_drift WITH (security_invoker = true) AS
SELECT
  usage_date,
  mode,
  used_turn,
  sum(sessions)::bigint AS sessions,
  sum(tokens)::bigint AS tokens,
  sum(seconds)::bigint AS seconds
FROM (
  SELECT
    ("timestamp" AT TIME ZONE 'UTC')::date AS usage_date,
    mode,
    used_turn,
    count(*) AS sessions,
    sum(tokens_used) AS tokens,
    coalesce(sum(duration_seconds), 0) AS seconds
  FROM public.token_usage
  GROUP BY 1, mode, used_turn
  UNION ALL
  SELECT usage_date, mode, used_turn, -sessions, -tokens, -seconds
  FROM oblivion.daily_usage
  UNION ALL
  SELECT usage_date, mode, used_turn, -sessions, -tokens, -seconds
  FROM oblivion.usage_deltas
  WHERE usage_date IS NOT NULL
) AS amounts
GROUP BY usage_date, mode, used_turn
HAVING (sum(sessions), sum(tokens), sum(seconds)) <> (0, 0, 0);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.daily_usage_drift FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.daily_usage_drift FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

GRANT SELECT ON TABLE oblivion.daily_usage_drift TO PUBLIC;

COMMENT ON VIEW oblivion.daily_usage_drift IS
  'Differences between the roll-up of days and the rows of token_usage; empty if there are none.';
COMMENT ON COLUMN oblivion.daily_usage_drift.usage_date IS 'UTC day.';
COMMENT ON COLUMN oblivion.daily_usage_drift.mode IS 'voice or video.';
COMMENT ON COLUMN oblivion.daily_usage_drift.used_turn IS 'Whether the TURN rate applied.';
COMMENT ON COLUMN oblivion.daily_usage_drift.sessions IS 'Rows that the roll-up lacks; negative if it has too many.';
COMMENT ON COLUMN oblivion.daily_usage_drift.tokens IS 'Tokens that the roll-up lacks; negative if it has too many.';
COMMENT ON COLUMN oblivion.daily_usage_drift.seconds IS 'Seconds that the roll-up lacks; negative if it has too many.';
