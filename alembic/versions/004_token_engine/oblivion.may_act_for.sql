-- Whether `caller` may act for a user, or for a call of no user, whose id is all that it takes. A role is trusted that is
-- the owner, as whom the engine runs, or may become it.
CREATE FUNCTION oblivion.may_act_for(user_id text, caller text)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = ''
RETURN oblivion.open_access()
  OR user_id IS NULL
  OR starts_with(user_id, 'anonymous_')
  OR caller = 'service_role'
  -- A visitor is nobody, not NULL, which NOT would make no refusal.
  OR user_id IS NOT DISTINCT FROM oblivion.current_user_id()
  OR pg_has_role(caller::name, current_user, 'USAGE');

COMMENT ON FUNCTION oblivion.may_act_for(text, text) IS 'Whether a role may act for a user, or a call of no user.';
