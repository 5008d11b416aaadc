-- The common part of tick_call, set_call_turn, end_call, burn_calls, reap_stale_calls and settle_calls. It locks the
-- call and bills it. Then the call goes on, changes TURN, or ends. `action`: tick, turn, end, burn, reap or settle.
CREATE FUNCTION oblivion.advance_call(session_id uuid, action text, turn boolean, caller text)
RETURNS oblivion.live_calls
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  call pg_catalog.record;
  meter oblivion.call_meters;
  bill pg_catalog.record;
  lag interval;
  until timestamp with time zone;
  -- Minutes that have started, or that were billed before the clock was set back.
  minute integer;
  ends boolean;
  turns boolean;
  state oblivion.live_calls;
BEGIN
  IF action NOT IN ('tick', 'turn', 'end') THEN
    PERFORM oblivion.refuse_pages();
  END IF;
  IF action = 'turn' AND turn IS NULL THEN
    RAISE invalid_parameter_value USING MESSAGE = 'used_turn is NULL', HINT = 'Give true or false';
  END IF;
  state.session_id := session_id;
  state.charged := 0;
  state.shortfall := 0;
  -- Lock both rows: after a wait PostgreSQL rereads only the rows that it locks.
  SELECT c.start_time, c.end_time, c.used_turn, m AS meter
  INTO call
  FROM public.call_sessions AS c
  JOIN oblivion.call_meters AS m ON m.session_id = c.id
  WHERE c.id = advance_call.session_id
  FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    state.status := oblivion.advance_unmetered_call(session_id, action, caller);
    RETURN state;
  END IF;
  meter := call.meter;
  IF NOT (oblivion.open_access() OR oblivion.may_act_for(meter.user_id, caller)) THEN
    state.status := 'unknown';
    RETURN state;
  END IF;
  lag := oblivion.page_lag(meter, call.start_time);
  state.credit_cost := meter.cost;
  IF call.end_time IS NULL
    OR meter.reaped AND action IN ('tick', 'turn', 'end') AND (NOT meter.by_page OR oblivion.is_fresh(meter))
  THEN
    -- The client of a reaped call has come back: the time since the reaping is billed now.
    -- The server's clock, read after the locks were taken, but not before what was billed.
    until := CASE action
      WHEN 'reap' THEN greatest(meter.seen_at, meter.started_at)
      WHEN 'burn' THEN meter.seen_at
      ELSE oblivion.last_moment(meter)
    END;
    -- If nobody remembered a page's call for long, a tick does not go on with it: each would bill as long again.
    ends := action IN ('end', 'reap')
      OR action IN ('tick', 'turn') AND meter.by_page AND NOT oblivion.is_fresh(meter);
  ELSIF meter.settled OR action IN ('tick', 'turn') THEN
    state.status := 'ended';
    SELECT a.tokens_remaining INTO state.balance FROM public.user_accounts AS a WHERE a.user_id = meter.user_id;
    IF isfinite(call.end_time) AND isfinite(meter.started_at) THEN
      until := CASE WHEN meter.by_page THEN meter.seen_at ELSE call.end_time END;
      state.minutes_billed := ceil(greatest(0, date_part('epoch', until - meter.started_at)) / 60);
    END IF;
    RETURN state;
  ELSE
    until := CASE WHEN meter.by_page THEN meter.seen_at ELSE call.end_time END;
    ends := true;
  END IF;

  -- What is reaped is charged at the lower rate: the page may end the call after all, and say that it used no TURN.
  IF ends AND action <> 'reap' AND NOT meter.reaped OR action = 'end' THEN
    meter := oblivion.final_meter(meter, call.used_turn);
  END IF;
  turns := action = 'turn' AND turn <> meter.used_turn AND NOT meter.by_page;
  IF turns THEN
    minute := greatest(
      ceil(date_part('epoch', until - meter.started_at) / 60),
      meter.first_minute + (meter.cost - meter.due_before) / nullif(meter.tokens_per_minute, 0)
    );
  END IF;
  bill := oblivion.bill_call(meter, until, ends OR turns AND minute > meter.first_minute, action);
  IF turns THEN
    PERFORM oblivion.turn_call(
      meter, turn, minute, floor(date_part('epoch', until - meter.started_at))::integer,
      is_logged => bill.status IN ('ok', 'short')
    );
  END IF;
  meter := oblivion.note_outcome(
    meter, bill.status, until, ends, is_reaped => action = 'reap' OR meter.reaped AND action = 'settle'
  );
  IF action NOT IN ('tick', 'burn') OR call.end_time IS NOT NULL OR ends THEN
    PERFORM set_config('oblivion.reason', 'charge ' || session_id, true);
    UPDATE public.call_sessions AS c
    SET
      credit_cost = bill.cost,
      end_time = CASE WHEN ends THEN until + lag END,
      used_turn = CASE action WHEN 'turn' THEN turn ELSE c.used_turn END
    WHERE c.id = advance_call.session_id;
    PERFORM set_config('oblivion.reason', '', true);
  END IF;
  state.status := bill.status;
  state.charged := bill.charged;
  state.shortfall := bill.shortfall;
  state.balance := bill.balance;
  state.minutes_billed := bill.minutes;
  state.minutes_left := bill.balance / nullif(meter.tokens_per_minute, 0);
  state.credit_cost := bill.cost;
  RETURN state;
END
$$;

COMMENT ON FUNCTION oblivion.advance_call(uuid, text, boolean, text) IS
  'Bills a call, and then continues it, changes its TURN, or ends it. The common part of tick_call(), '
  'set_call_turn(), end_call(), burn_calls(), reap_stale_calls() and settle_calls().';
