CREATE TABLE oblivion.daily_usage (
  usage_date date NOT NULL,
  mode text NOT NULL,
  used_turn boolean NOT NULL,
  sessions bigint NOT NULL,
  tokens bigint NOT NULL,
  seconds bigint NOT NULL,
  CONSTRAINT daily_usage_pkey PRIMARY KEY (usage_date, mode, used_turn)
);

ALTER TABLE oblivion.daily_usage ENABLE ROW LEVEL SECURITY;

CREATE POLICY daily_usage_select ON oblivion.daily_usage FOR SELECT TO public
  USING (oblivion.open_access() OR oblivion.is_service_role());

CREATE POLICY daily_usage_insert ON oblivion.daily_usage FOR INSERT TO public WITH CHECK (false);

CREATE POLICY daily_usage_update ON oblivion.daily_usage FOR UPDATE TO public
  USING (false)
  WITH CHECK (false);

CREATE POLICY daily_usage_delete ON oblivion.daily_usage FOR DELETE TO public USING (false);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.daily_usage FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.daily_usage FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

GRANT SELECT ON TABLE oblivion.daily_usage TO PUBLIC;

COMMENT ON TABLE oblivion.daily_usage IS
  'Usage by UTC day, mode and TURN, without the changes that are still in usage_deltas.';
COMMENT ON COLUMN oblivion.daily_usage.usage_date IS 'UTC day on which the usage was logged.';
COMMENT ON COLUMN oblivion.daily_usage.mode IS 'voice or video.';
COMMENT ON COLUMN oblivion.daily_usage.used_turn IS 'Whether the TURN rate applied.';
COMMENT ON COLUMN oblivion.daily_usage.sessions IS 'Rows of token_usage.';
COMMENT ON COLUMN oblivion.daily_usage.tokens IS 'Sum of tokens_used.';
COMMENT ON COLUMN oblivion.daily_usage.seconds IS 'Sum of the lengths in seconds; an unknown length counts as 0.';
