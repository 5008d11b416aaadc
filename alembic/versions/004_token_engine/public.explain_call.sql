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
  'The receipt of a metered call: a row for each segment, with its mode and TURN, its first minute and its minutes, '
  'the rate and its date, tokens due, charged, and shortfall.';
