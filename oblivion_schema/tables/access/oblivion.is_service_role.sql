-- Supabase's service_role bypasses row level security. A service_role that a plain owner created does not, so the
-- policies let it through.
-- IMMUTABLE is safe here: PostgreSQL never reuses a plan with policies for another role. It lets the planner fold the
-- call.
-- PL/pgSQL: it is called once for each plan, and an SQL function would have to be planned itself each time.
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

COMMENT ON FUNCTION oblivion.is_service_role() IS
  'Whether the current role is service_role, which reaches all rows in both access modes.';
