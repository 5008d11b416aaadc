-- Whether `caller` may act for a user. Whoever knows the id of a call without a user may act for that call.
-- The engine runs as the owner. A role that is the owner, or may become the owner, is trusted.
-- PL/pgSQL, which keeps its plan: an SQL function with a SET is planned anew by each query.
CREATE FUNCTION oblivion.may_act_for(user_id text, caller text)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = ''
AS $$
BEGIN
  RETURN oblivion.open_access()
    OR user_id IS NULL
    OR starts_with(user_id, 'anonymous_')
    OR caller = 'service_role' AND (current_setting('role') = 'service_role' OR NOT oblivion.is_intruder())
    -- Not =: for a visitor that is NULL, and NOT NULL would refuse nobody.
    OR user_id IS NOT DISTINCT FROM oblivion.current_user_id()
    OR pg_has_role(caller::pg_catalog.name, current_user, 'USAGE') AND NOT oblivion.is_intruder();
END
$$;

COMMENT ON FUNCTION oblivion.may_act_for(text, text) IS
  'Whether the role caller may act for a user; every role may for a call without a user.';
