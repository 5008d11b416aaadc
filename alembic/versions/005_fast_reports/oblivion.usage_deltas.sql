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

COMMENT ON TABLE oblivion.usage_deltas IS 'What changed in usage and is not yet in daily_usage and user_usage.';
COMMENT ON COLUMN oblivion.usage_deltas.user_id IS 'The account; NULL where it is a day''s alone.';
COMMENT ON COLUMN oblivion.usage_deltas.usage_date IS 'UTC day; NULL where it is an account''s alone.';
COMMENT ON COLUMN oblivion.usage_deltas.mode IS 'voice or video; NULL as the day.';
COMMENT ON COLUMN oblivion.usage_deltas.used_turn IS 'Whether the TURN rate applied; NULL as the day.';
COMMENT ON COLUMN oblivion.usage_deltas.sessions IS 'Rows more, or, below zero, fewer.';
COMMENT ON COLUMN oblivion.usage_deltas.tokens IS 'Tokens more.';
COMMENT ON COLUMN oblivion.usage_deltas.seconds IS 'Seconds more.';
COMMENT ON COLUMN oblivion.usage_deltas.last_usage IS 'The newest of the rows that came.';
COMMENT ON COLUMN oblivion.usage_deltas.has_lost_rows IS 'Rows that went may have been newer than those that came.';
