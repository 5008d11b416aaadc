-- How calls of pages are billed. As with oblivion.open_access(), only the text of this function differs between
-- databases (oblivion_schema.tables.modes).
CREATE OR REPLACE FUNCTION oblivion.page_billing()
RETURNS text
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
SET search_path = ''
RETURN 'trusted';

COMMENT ON FUNCTION oblivion.page_billing() IS
  'How a call that a page inserts is billed. trusted: by the page itself; metered: by the token engine.';
