DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON SCHEMA oblivion FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON SCHEMA oblivion FROM %I CASCADE', api_role);
    IF NOT has_schema_privilege(api_role, 'public', 'USAGE') THEN
      EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', api_role);
    END IF;
  END LOOP;
END
$$;

COMMENT ON SCHEMA oblivion IS 'Hidden from clients: the version table, internal tables and functions.';
