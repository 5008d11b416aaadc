CREATE TABLE oblivion.user_usage (
  user_id text NOT NULL,
  sessions bigint NOT NULL,
  tokens bigint NOT NULL,
  last_usage timestamp with time zone,
  has_lost_rows boolean NOT NULL,
  CONSTRAINT user_usage_pkey PRIMARY KEY (user_id)
)
WITH (fillfactor = 50);

ALTER TABLE oblivion.user_usage ENABLE ROW LEVEL SECURITY;

CREATE POLICY user_usage_select ON oblivion.user_usage FOR SELECT TO public
  USING (oblivion.open_access() OR oblivion.is_service_role());

CREATE POLICY user_usage_insert ON oblivion.user_usage FOR INSERT TO public WITH CHECK (false);

CREATE POLICY user_usage_update ON oblivion.user_usage FOR UPDATE TO public USING (false) WITH CHECK (false);

CREATE POLICY user_usage_delete ON oblivion.user_usage FOR DELETE TO public USING (false);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.user_usage FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.user_usage FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

GRANT SELECT ON TABLE oblivion.user_usage TO PUBLIC;

COMMENT ON TABLE oblivion.user_usage IS 'Usage by account, without the changes that are still in usage_deltas.';
COMMENT ON COLUMN oblivion.user_usage.user_id IS 'The account.';
COMMENT ON COLUMN oblivion.user_usage.sessions IS 'Rows of token_usage.';
COMMENT ON COLUMN oblivion.user_usage.tokens IS 'Sum of tokens_used.';
COMMENT ON COLUMN oblivion.user_usage.last_usage IS
  'Newest timestamp of the rows; it may be too late if has_lost_rows.';
COMMENT ON COLUMN oblivion.user_usage.has_lost_rows IS
  'Whether rows were deleted, or moved back in time: last_usage may be of such a row.';
