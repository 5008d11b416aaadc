-- The common case is one statement; advance_call() does all others. PostgreSQL puts this body into the query that calls
-- it, which costs nothing: a function with SET search_path would be planned anew by each query. The names were bound at
-- creation, so no search_path changes what they mean.
CREATE FUNCTION public.tick_call(session_id uuid)
RETURNS oblivion.live_calls
LANGUAGE sql
RETURN coalesce(
  oblivion.tick_call(session_id, current_user::text COLLATE "default"),
  oblivion.advance_call(session_id, 'tick', NULL, current_user::text COLLATE "default")
);

COMMENT ON FUNCTION public.tick_call(uuid) IS
  'Bills the minutes that have started, and notes that the call was seen. A lost, repeated or late tick changes no '
  'total. session_id: the call. Returns one row: session_id as given; status: ok; short (the balance did not cover '
  'all tokens due); not_billed (no account pays, or an old client bills the call itself); unsettled (billing failed; '
  'the next tick or settle_calls() charges the call); ended (the call had ended before); unknown (no such call, or a '
  'call of another user). charged: tokens taken now. shortfall: tokens due now that the balance did not cover. '
  'balance: tokens left. minutes_billed: started minutes in all. minutes_left: whole minutes that the balance still '
  'covers, NULL at a rate of zero. credit_cost: tokens due in all.';
