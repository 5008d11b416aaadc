CREATE FUNCTION public.set_call_turn(
  INOUT session_id uuid,
  used_turn boolean,
  OUT status text,
  OUT charged integer,
  OUT shortfall integer,
  OUT balance integer,
  OUT minutes_billed integer,
  OUT minutes_left integer,
  OUT credit_cost numeric
)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.advance_call(session_id, 'turn', used_turn, current_user::text COLLATE "default") AS a;
END;

COMMENT ON FUNCTION public.set_call_turn(uuid, boolean) IS
  'Bills the minutes that have started, and says whether a TURN relay carries the media from now on, which prices the '
  'minutes to come. Returns a row. status: ok; short, the balance did not cover it; not_billed, nobody pays; '
  'unsettled, billing failed and is made up for later; ended, it had ended before; unknown, no such call, or not the '
  'caller''s. charged and shortfall: tokens, by this time. balance: tokens left. minutes_billed: started minutes in '
  'all. minutes_left: whole minutes that the balance covers. credit_cost: tokens due in all.';
