-- The access mode. Only the text of this function differs between databases: in the authenticated mode it returns false
-- (oblivion_schema.tables.access.switch).
-- It is a constant, which the planner folds into each policy that calls it.
CREATE OR REPLACE FUNCTION oblivion.open_access()
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
SET search_path = ''
RETURN true;

COMMENT ON FUNCTION oblivion.open_access() IS 'The access mode: true if open, false if authenticated.';
