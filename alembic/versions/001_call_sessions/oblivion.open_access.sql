-- A database that is in a mode already stays in it.
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

COMMENT ON FUNCTION oblivion.open_access() IS 'The access mode: true in the open one.';
