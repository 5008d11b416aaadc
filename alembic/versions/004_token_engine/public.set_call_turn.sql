CREATE FUNCTION public.set_call_turn(session_id uuid, used_turn boolean)
RETURNS oblivion.live_calls
LANGUAGE sql
SET search_path = ''
RETURN oblivion.advance_call(session_id, 'turn', used_turn, current_user::text COLLATE "default");

COMMENT ON FUNCTION public.set_call_turn(uuid, boolean) IS
  'Bills the minutes that have started, then sets whether a TURN relay carries the media. The other rate applies from '
  'the next minute on. session_id: the call. used_turn: true or false. Returns one row: session_id as given; status: '
  'ok; short (the balance did not cover all tokens due); not_billed (no account pays, or an old client bills the call '
  'itself); unsettled (billing failed; the next tick or settle_calls() charges the call); ended (the call had ended '
  'before); unknown (no such call, or a call of another user). charged: tokens taken now. shortfall: tokens due now '
  'that the balance did not cover. balance: tokens left. minutes_billed: started minutes in all. minutes_left: whole '
  'minutes that the balance still covers, NULL at a rate of zero. credit_cost: tokens due in all. Errors: 22023 '
  'used_turn is NULL.';
