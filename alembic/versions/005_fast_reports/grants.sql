-- All API roles may execute these.
DO $$
DECLARE
  api_role name;
  functions CONSTANT text := '
    oblivion.host_presence(text, interval),
    public.host_presence(text, interval)
  ';
BEGIN
  EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC CASCADE', functions);
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I CASCADE', functions, api_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', functions, api_role);
  END LOOP;
END
$$;

-- Only the owner may execute these.
DO $$
DECLARE
  api_role name;
  functions CONSTANT text := '
    oblivion.fold_usage(integer),
    oblivion.fold_calls(integer),
    oblivion.note_usage(),
    oblivion.note_calls(),
    oblivion.clear_rollups(),
    oblivion.rebuild_rollups(),
    oblivion.backfill()
  ';
BEGIN
  EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC CASCADE', functions);
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I CASCADE', functions, api_role);
  END LOOP;
END
$$;

-- These are in the plans of reports, so every role that may query a report needs EXECUTE.
GRANT EXECUTE ON FUNCTION oblivion.call_amounts(timestamptz, timestamptz, text, boolean, numeric) TO PUBLIC;

GRANT EXECUTE ON FUNCTION oblivion.missing_usage() TO PUBLIC;

GRANT EXECUTE ON FUNCTION oblivion.missing_calls() TO PUBLIC;

GRANT EXECUTE ON FUNCTION oblivion.count_usage(text) TO PUBLIC;

-- What default privileges gave. Alembic makes the version table.
DO $$
DECLARE
  api_role text;
BEGIN
  FOR api_role IN
    SELECT 'PUBLIC'
    UNION ALL
    SELECT quote_ident(rolname) FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.adoption_log, oblivion.callers_without_account FROM %s CASCADE', api_role);
    EXECUTE format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA oblivion FROM %s CASCADE', api_role);
    IF to_regclass('oblivion.alembic_version') IS NOT NULL THEN
      EXECUTE format('REVOKE ALL ON TABLE oblivion.alembic_version FROM %s CASCADE', api_role);
    END IF;
    -- PUBLIC may execute these.
    IF api_role <> 'PUBLIC' THEN
      EXECUTE format(
        'REVOKE ALL ON FUNCTION
          oblivion.call_amounts(timestamptz, timestamptz, text, boolean, numeric), oblivion.count_usage(text),
          oblivion.missing_calls(), oblivion.missing_usage()
        FROM %s CASCADE', api_role
      );
    END IF;
  END LOOP;
END
$$;
