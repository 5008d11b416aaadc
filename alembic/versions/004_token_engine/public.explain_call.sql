CREATE FUNCTION public.explain_call(session_id uuid)
RETURNS TABLE (
  segment integer,
  mode text,
  used_turn boolean,
  first_minute integer,
  minutes integer,
  tokens_per_minute integer,
  rate_from timestamptz,
  due integer,
  charged integer,
  shortfall integer
)
LANGUAGE sql
STABLE
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.explain_call(session_id, current_user::text COLLATE "default") AS a;
END;

COMMENT ON FUNCTION public.explain_call(uuid) IS
  'The receipt of a metered call: one row for each segment, a span of minutes at one rate. session_id: the call. '
  'Returns segment: its number, from 1. mode: voice or video. used_turn: whether the TURN rate applies. first_minute: '
  'its first minute in the call, from 1. minutes: minutes that were billed. tokens_per_minute: the rate. rate_from: '
  'when that rate took effect. due: tokens due. charged: tokens taken. shortfall: tokens that the balance did not '
  'cover. Returns no row for an unknown call, or a call of another user.';
