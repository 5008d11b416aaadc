-- An existing database keeps its mode. A new one gets the mode of the setting oblivion.pages; without it pages are
-- trusted.
DO $$
BEGIN
  IF to_regprocedure('oblivion.page_billing()') IS NOT NULL THEN
    NULL;
  ELSIF coalesce(current_setting('oblivion.pages', true), '') = 'metered' THEN
    CREATE FUNCTION oblivion.page_billing()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE PARALLEL SAFE
    SET search_path = ''
    RETURN 'metered';
  ELSE
    CREATE FUNCTION oblivion.page_billing()
    RETURNS text
    LANGUAGE sql
    IMMUTABLE PARALLEL SAFE
    SET search_path = ''
    RETURN 'trusted';
  END IF;
END
$$;

COMMENT ON FUNCTION oblivion.page_billing() IS
  'How a call that a page inserts is billed. trusted: by the page itself; metered: by the token engine.';
