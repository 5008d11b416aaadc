-- Pages have no USAGE on schema oblivion: its functions hear of them from those of schema public, which say in which role
-- they run. If somebody granted USAGE, a page may call a function there by name, and say that it is another role.
CREATE OR REPLACE FUNCTION oblivion.is_intruder()
RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = ''
AS $$
DECLARE
  caller CONSTANT pg_catalog.text := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
  RETURN caller IN ('anon', 'authenticated') AND has_schema_privilege(caller::pg_catalog.name, 'oblivion', 'USAGE');
END
$$;

COMMENT ON FUNCTION oblivion.is_intruder() IS
  'Whether a page made the request that may call the functions of this schema by name, so that its word counts nothing.';
