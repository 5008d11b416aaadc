CREATE FUNCTION public.tick_call(
  INOUT session_id uuid,
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
  FROM oblivion.advance_call(session_id, 'tick', NULL, current_user::text COLLATE "default") AS a;
END;

COMMENT ON FUNCTION public.tick_call(uuid) IS
  'Bills the minutes that have started, and notes that the call was seen. A lost, repeated or late tick changes no '
  'total. session_id: the call. Returns one row: session_id as given; status: ok; short (the balance did not cover '
  'all tokens due); not_billed (no account pays, or an old client bills the call itself); unsettled (billing failed; '
  'the next tick or settle_calls() charges the call); ended (the call had ended before); unknown (no such call, or a '
  'call of another user). charged: tokens taken now. shortfall: tokens due now that the balance did not cover. '
  'balance: tokens left. minutes_billed: started minutes in all. minutes_left: whole minutes that the balance still '
  'covers, NULL at a rate of zero. credit_cost: tokens due in all.';
