CREATE TABLE oblivion.sees_all (
  yes boolean NOT NULL,
  CONSTRAINT sees_all_pkey PRIMARY KEY (yes)
);

ALTER TABLE oblivion.sees_all ADD CONSTRAINT sees_all_yes_check CHECK (yes);

INSERT INTO oblivion.sees_all (yes) VALUES (true);

ALTER TABLE oblivion.sees_all ENABLE ROW LEVEL SECURITY;

CREATE POLICY sees_all_select ON oblivion.sees_all FOR SELECT TO public
  USING (oblivion.open_access() OR oblivion.is_service_role());

CREATE POLICY sees_all_insert ON oblivion.sees_all FOR INSERT TO public WITH CHECK (false);

CREATE POLICY sees_all_update ON oblivion.sees_all FOR UPDATE TO public USING (false) WITH CHECK (false);

CREATE POLICY sees_all_delete ON oblivion.sees_all FOR DELETE TO public USING (false);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.sees_all FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.sees_all FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

GRANT SELECT ON TABLE oblivion.sees_all TO PUBLIC;

COMMENT ON TABLE oblivion.sees_all IS
  'One row, which those see whom row level security shows all rows of calls and usage.';
COMMENT ON COLUMN oblivion.sees_all.yes IS 'True.';
