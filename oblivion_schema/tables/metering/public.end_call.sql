-- As public.tick_call().
CREATE OR REPLACE FUNCTION public.end_call(session_id uuid)
RETURNS oblivion.live_calls
LANGUAGE sql
RETURN coalesce(
  oblivion.end_call(session_id, current_user::text COLLATE "default"),
  oblivion.advance_call(session_id, 'end', NULL, current_user::text COLLATE "default")
);

COMMENT ON FUNCTION public.end_call(uuid) IS
  'Ends the call now, and bills it. The call ends even if billing fails, and is billed once, however often it is '
  'ended. session_id: the call. Returns one row: session_id as given; status: ok; short (the balance did not cover '
  'all tokens due); not_billed (no account pays, or an old client bills the call itself); unsettled (billing failed; '
  'the next tick or settle_calls() charges the call); ended (the call had ended before); unknown (no such call, or a '
  'call of another user). charged: tokens taken now. shortfall: tokens due now that the balance did not cover. '
  'balance: tokens left. minutes_billed: started minutes in all. minutes_left: whole minutes that the balance still '
  'covers, NULL at a rate of zero. credit_cost: tokens due in all.';
