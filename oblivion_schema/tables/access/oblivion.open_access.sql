-- The access mode, and so the only text in the database that is not always the same: in the authenticated mode this
-- returns false (oblivion_schema.access.switch). A constant, which the planner folds into each policy that asks.
CREATE OR REPLACE FUNCTION oblivion.open_access()
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
SET search_path = ''
RETURN true;

COMMENT ON FUNCTION oblivion.open_access() IS 'The access mode: true in the open one.';
