CREATE TABLE oblivion.usage_deltas (
  user_id text,
  usage_date date,
  mode text,
  used_turn boolean,
  sessions bigint NOT NULL,
  tokens bigint NOT NULL,
  seconds bigint NOT NULL,
  last_usage timestamp with time zone,
  has_lost_rows boolean NOT NULL
)
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

ALTER TABLE oblivion.usage_deltas REPLICA IDENTITY FULL;

ALTER TABLE oblivion.usage_deltas ENABLE ROW LEVEL SECURITY;

CREATE POLICY usage_deltas_select ON oblivion.usage_deltas FOR SELECT TO public
  USING (oblivion.open_access() OR oblivion.is_service_role());

CREATE POLICY usage_deltas_insert ON oblivion.usage_deltas FOR INSERT TO public WITH CHECK (false);

CREATE POLICY usage_deltas_update ON oblivion.usage_deltas FOR UPDATE TO public
  USING (false)
  WITH CHECK (false);

CREATE POLICY usage_deltas_delete ON oblivion.usage_deltas FOR DELETE TO public USING (false);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.usage_deltas FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.usage_deltas FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

GRANT SELECT ON TABLE oblivion.usage_deltas TO PUBLIC;

COMMENT ON TABLE oblivion.usage_deltas IS 'Changes of usage that are not yet folded into daily_usage and user_usage.';
COMMENT ON COLUMN oblivion.usage_deltas.user_id IS 'The account; NULL if the delta is for a day alone.';
COMMENT ON COLUMN oblivion.usage_deltas.usage_date IS 'UTC day; NULL if the delta is for an account alone.';
COMMENT ON COLUMN oblivion.usage_deltas.mode IS 'voice or video; NULL if usage_date is NULL.';
COMMENT ON COLUMN oblivion.usage_deltas.used_turn IS 'Whether the TURN rate applied; NULL if usage_date is NULL.';
COMMENT ON COLUMN oblivion.usage_deltas.sessions IS 'Rows added; negative if they were removed.';
COMMENT ON COLUMN oblivion.usage_deltas.tokens IS 'Tokens added; negative if they were removed.';
COMMENT ON COLUMN oblivion.usage_deltas.seconds IS 'Seconds added; negative if they were removed.';
COMMENT ON COLUMN oblivion.usage_deltas.last_usage IS 'Newest timestamp of the rows added; NULL if none were.';
COMMENT ON COLUMN oblivion.usage_deltas.has_lost_rows IS
  'Whether a removed row may have been newer than the rows added.';
