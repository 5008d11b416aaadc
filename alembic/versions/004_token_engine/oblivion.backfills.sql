CREATE TABLE oblivion.backfills (
  name text NOT NULL,
  noted_at timestamp with time zone DEFAULT now() NOT NULL,
  CONSTRAINT backfills_pkey PRIMARY KEY (name)
);

ALTER TABLE oblivion.backfills ENABLE ROW LEVEL SECURITY;

CREATE POLICY backfills_select ON oblivion.backfills FOR SELECT TO public USING (true);

CREATE POLICY backfills_insert ON oblivion.backfills FOR INSERT TO public WITH CHECK (false);

CREATE POLICY backfills_update ON oblivion.backfills FOR UPDATE TO public
  USING (false)
  WITH CHECK (false);

CREATE POLICY backfills_delete ON oblivion.backfills FOR DELETE TO public USING (false);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.backfills FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.backfills FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

GRANT SELECT ON TABLE oblivion.backfills TO PUBLIC;

COMMENT ON TABLE oblivion.backfills IS
  'What an upgrade left to be filled in by backfill(); empty if all is filled.';
COMMENT ON COLUMN oblivion.backfills.name IS
  'ledger: opening rows of token_ledger; usage, calls: the roll-ups of token_usage, of call_sessions.';
COMMENT ON COLUMN oblivion.backfills.noted_at IS 'When the upgrade began; opening rows get this time.';
