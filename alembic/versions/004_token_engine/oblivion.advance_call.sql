-- The common part of tick_call, set_call_turn, end_call, reap_stale_calls and settle_calls. It locks the call and bills
-- it. Then the call goes on, changes TURN, or ends. `action`: tick, turn, end, reap or settle.
CREATE FUNCTION oblivion.advance_call(
  INOUT session_id uuid,
  action text,
  turn boolean,
  caller text,
  OUT status text,
  OUT charged integer,
  OUT shortfall integer,
  OUT balance integer,
  OUT minutes_billed integer,
  OUT minutes_left integer,
  OUT credit_cost numeric
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  call pg_catalog.record;
  meter oblivion.call_meters;
  bill pg_catalog.record;
  -- The server's clock, read after the lock was taken.
  clock timestamp with time zone;
  until timestamp with time zone;
  end_at timestamp with time zone;
  stays_reaped boolean;
BEGIN
  IF action = 'turn' AND turn IS NULL THEN
    RAISE invalid_parameter_value USING MESSAGE = 'used_turn is NULL', HINT = 'Give true or false';
  END IF;
  charged := 0;
  shortfall := 0;
  -- Lock both rows: after a wait PostgreSQL rereads only the rows that it locks.
  SELECT c.start_time, c.end_time, c.updated_at, c.user_id, c.credit_cost, m AS meter
  INTO call
  FROM public.call_sessions AS c
  JOIN oblivion.call_meters AS m ON m.session_id = c.id
  WHERE c.id = advance_call.session_id
  FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    status := oblivion.advance_unmetered_call(session_id, action, caller);
    RETURN;
  END IF;
  clock := clock_timestamp();
  IF NOT (oblivion.open_access() OR oblivion.may_act_for(call.user_id, caller)) THEN
    status := 'unknown';
    RETURN;
  END IF;
  meter := call.meter;
  credit_cost := call.credit_cost;
  IF call.end_time IS NULL OR meter.reaped AND action IN ('tick', 'turn', 'end') THEN
    -- The client of a reaped call has come back: the time since the reaping is billed now.
    until := CASE action WHEN 'reap' THEN greatest(call.updated_at, call.start_time) ELSE clock END;
    end_at := CASE WHEN action IN ('end', 'reap') THEN until END;
  ELSIF meter.settled OR action IN ('tick', 'turn') THEN
    status := 'ended';
    SELECT a.tokens_remaining INTO balance FROM public.user_accounts AS a WHERE a.user_id = call.user_id;
    minutes_billed := ceil(greatest(0, date_part('epoch', call.end_time - call.start_time)) / 60);
    RETURN;
  ELSE
    until := call.end_time;
    end_at := call.end_time;
  END IF;

  bill := oblivion.bill_call(meter, call.user_id, call.start_time, call.credit_cost::integer, until, action);
  status := bill.status;
  charged := bill.charged;
  shortfall := bill.shortfall;
  balance := bill.balance;
  minutes_billed := bill.minutes;
  minutes_left := bill.minutes_left;
  credit_cost := bill.cost;
  IF action = 'turn' AND turn <> meter.used_turn THEN
    minutes_left := balance / nullif(
      oblivion.turn_call(meter, turn, greatest(
        date_part('epoch', until - call.start_time),
        -- If the clock was set back, minutes that were billed stay billed.
        60 * (meter.first_minute + (bill.cost - meter.due_before) / nullif(meter.tokens_per_minute, 0))
      )), 0
    );
  END IF;
  -- Update even if nothing is due: a trigger sets updated_at, which is when the call was last seen.
  UPDATE public.call_sessions AS c
  SET
    credit_cost = bill.cost,
    end_time = end_at,
    used_turn = CASE action WHEN 'turn' THEN turn ELSE c.used_turn END
  WHERE c.id = advance_call.session_id;
  stays_reaped := action = 'reap' OR meter.reaped AND action = 'settle';
  IF (meter.settled, meter.reaped, meter.has_incident)
    <> (end_at IS NOT NULL AND status <> 'unsettled', stays_reaped, status = 'unsettled')
  THEN
    PERFORM oblivion.note_outcome(session_id, status, end_at IS NOT NULL, stays_reaped, meter.has_incident);
  END IF;
END
$$;

COMMENT ON FUNCTION oblivion.advance_call(uuid, text, boolean, text) IS
  'Bills a call, and then continues it, changes its TURN, or ends it. The common part of tick_call(), '
  'set_call_turn(), end_call(), reap_stale_calls() and settle_calls().';
