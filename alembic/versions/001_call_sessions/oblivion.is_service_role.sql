-- Supabase's service_role goes past row level security; one that a plain owner made does not, so policies let it through.
-- IMMUTABLE, for the planner to fold it: a plan with policies in it is made for one role, and never runs as another.
-- PL/pgSQL, for it is asked once a plan: a function in SQL would have to be planned itself each time.
CREATE OR REPLACE FUNCTION oblivion.is_service_role()
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE
SET search_path = ''
AS $$
BEGIN
  RETURN current_user = 'service_role';
END
$$;

COMMENT ON FUNCTION oblivion.is_service_role() IS 'Whether service_role asks, which reaches all rows in both modes.';
