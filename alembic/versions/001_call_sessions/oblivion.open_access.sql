-- An existing database keeps its mode. A new one gets the mode of the setting oblivion.access, and is open without it.
DO $$
BEGIN
  IF to_regprocedure('oblivion.open_access()') IS NOT NULL THEN
    NULL;
  ELSIF coalesce(current_setting('oblivion.access', true), '') = 'authenticated' THEN
    CREATE FUNCTION oblivion.open_access()
    RETURNS boolean
    LANGUAGE sql
    IMMUTABLE PARALLEL SAFE
    SET search_path = ''
    RETURN false;
  ELSE
    CREATE FUNCTION oblivion.open_access()
    RETURNS boolean
    LANGUAGE sql
    IMMUTABLE PARALLEL SAFE
    SET search_path = ''
    RETURN true;
  END IF;
END
$$;

COMMENT ON FUNCTION oblivion.open_access() IS 'The access mode: true if open, false if authenticated.';
