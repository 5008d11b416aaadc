-- Whether `caller` may act for a user. Whoever knows the id of a call without a user may act for that call.
-- The engine runs as the owner. A role that is the owner, or may become the owner, is trusted.
CREATE OR REPLACE FUNCTION oblivion.may_act_for(user_id text, caller text)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = ''
RETURN oblivion.open_access()
  OR user_id IS NULL
  OR starts_with(user_id, 'anonymous_')
  OR caller = 'service_role' AND NOT oblivion.is_intruder()
  -- Not =: for a visitor that is NULL, and NOT NULL would refuse nobody.
  OR user_id IS NOT DISTINCT FROM oblivion.current_user_id()
  OR pg_has_role(caller::name, current_user, 'USAGE') AND NOT oblivion.is_intruder();

COMMENT ON FUNCTION oblivion.may_act_for(text, text) IS
  'Whether the role caller may act for a user; every role may for a call without a user.';
