-- Supabase's service_role goes past row level security; one that a plain owner made does not, so policies let it through.
-- IMMUTABLE, for the planner to fold it: a plan with policies in it is made for one role, and never runs as another.
CREATE OR REPLACE FUNCTION oblivion.is_service_role()
RETURNS boolean
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
SET search_path = ''
RETURN current_user = 'service_role';
