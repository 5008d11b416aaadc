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
