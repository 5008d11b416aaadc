-- The heart of the engine. Charges the price of the call up to `until`, minus what was billed before. So the total does
-- not depend on how often, how late or in which order it is called.
-- The caller holds the locks of the call and of its meter, and writes `cost` to the call. Everybody who bills locks the
-- call first, then the account.
CREATE FUNCTION oblivion.bill_call(
  meter oblivion.call_meters,
  user_id text,
  start_time timestamptz,
  billed integer,
  until timestamptz,
  action text,
  OUT status text,
  OUT charged integer,
  OUT shortfall integer,
  OUT balance integer,
  OUT minutes integer,
  OUT minutes_left integer,
  OUT cost integer
)
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  seconds CONSTANT double precision := greatest(0, date_part('epoch', until - start_time));
  patience CONSTANT pg_catalog.text := current_setting('lock_timeout');
  -- The segment to bill: the current one (segment is NULL), or an earlier one that could not be billed in its time.
  usage_id pg_catalog.uuid;
  rate integer;
  turn boolean;
  due_before bigint;
  due_after bigint;
  length integer;
  segment integer;
  due bigint;
  paid integer;
  setting pg_catalog.text;
BEGIN
  status := 'not_billed';
  charged := 0;
  shortfall := 0;
  minutes := 0;
  cost := billed;
  IF user_id IS NULL OR starts_with(user_id, 'anonymous_') THEN
    RETURN;
  END IF;
  BEGIN
    minutes := ceil(seconds / 60);
    IF patience = '0' THEN
      -- A session that locks the account for long must not keep the call from ending, nor make the statement time out.
      setting := current_setting('statement_timeout');
      setting := set_config('lock_timeout', CASE
        WHEN setting IN ('0', '3s', '8s') THEN '1500ms'
        ELSE ceil(least(1500, 500 * date_part('epoch', setting::interval)))::pg_catalog.text
      END, true);
    END IF;
    LOOP
      IF cost < meter.due_before THEN
        SELECT s.number, s.usage_id, s.tokens_per_minute, s.used_turn, s.due_before, s.due_after, s.seconds
        INTO segment, usage_id, rate, turn, due_before, due_after, length
        FROM oblivion.call_segments AS s
        WHERE s.session_id = meter.session_id AND s.due_after > cost
        ORDER BY s.number
        LIMIT 1;
      ELSE
        segment := NULL;
        usage_id := meter.usage_id;
        rate := meter.tokens_per_minute;
        turn := meter.used_turn;
        due_before := meter.due_before;
        due_after := due_before + (minutes - meter.first_minute)::bigint * rate;
        length := floor(seconds) - meter.first_second;
      END IF;
      due := greatest(0, due_after - cost);
      IF due > 0 THEN
        IF cost + due > 999999 THEN
          RAISE numeric_value_out_of_range
            USING MESSAGE = format('The call would cost %s tokens, more than credit_cost can hold', cost + due),
              HINT = 'Set its start_time or end_time right, then call settle_calls()';
        END IF;
        setting := set_config('oblivion.reason', 'charge ' || meter.session_id, true);
        UPDATE public.user_accounts AS a
        SET tokens_remaining = a.tokens_remaining - due
        WHERE a.user_id = bill_call.user_id AND a.tokens_remaining >= due
        RETURNING a.tokens_remaining INTO balance;
        IF FOUND THEN
          paid := due;
        ELSE
          SELECT a.tokens_remaining INTO balance
          FROM public.user_accounts AS a
          WHERE a.user_id = bill_call.user_id
          FOR NO KEY UPDATE;
          paid := CASE WHEN FOUND THEN least(balance, due) END;
          balance := balance - paid;
          UPDATE public.user_accounts AS a
          SET tokens_remaining = bill_call.balance
          WHERE a.user_id = bill_call.user_id AND paid > 0;
          IF segment IS NULL THEN
            UPDATE oblivion.call_meters AS m
            SET shortfall = m.shortfall + due - paid
            WHERE m.session_id = meter.session_id AND paid < due;
          ELSE
            UPDATE oblivion.call_segments AS s
            SET shortfall = s.shortfall + due - paid
            WHERE s.session_id = meter.session_id AND s.number = segment AND paid < due;
          END IF;
        END IF;
        setting := set_config('oblivion.reason', '', true);
        EXIT WHEN paid IS NULL;
        charged := charged + paid;
        shortfall := shortfall + due - paid;
        cost := cost + due;
      ELSE
        SELECT a.tokens_remaining INTO balance
        FROM public.user_accounts AS a
        WHERE a.user_id = bill_call.user_id;
        EXIT WHEN NOT FOUND;
      END IF;
      IF due > 0 OR rate = 0 AND length > 0 THEN
        UPDATE public.token_usage AS u
        SET tokens_used = cost - due_before, duration_seconds = greatest(0, length)
        WHERE u.id = usage_id;
        IF NOT FOUND THEN
          INSERT INTO public.token_usage (
            id, user_id, session_id, tokens_used, mode, used_turn, duration_seconds, "timestamp"
          )
          VALUES (
            usage_id,
            bill_call.user_id,
            meter.session_id,
            cost - due_before,
            meter.mode,
            turn,
            greatest(0, length),
            clock_timestamp()
          );
        END IF;
      END IF;
      IF segment IS NULL THEN
        status := CASE WHEN shortfall > 0 THEN 'short' ELSE 'ok' END;
        minutes_left := balance / nullif(rate, 0);
        EXIT;
      END IF;
    END LOOP;
    IF status = 'not_billed' THEN
      minutes := 0;
    END IF;
    IF patience = '0' THEN
      setting := set_config('lock_timeout', '0', true);
    END IF;
  EXCEPTION
    WHEN OTHERS THEN
      -- The call goes on, or ends, all the same. Its next tick or settle_calls() charges it.
      status := 'unsettled';
      charged := 0;
      shortfall := 0;
      balance := NULL;
      minutes := NULL;
      minutes_left := NULL;
      cost := billed;
      PERFORM oblivion.note_incident(meter.session_id, user_id, action, SQLSTATE, SQLERRM);
  END;
END
$$;

COMMENT ON FUNCTION oblivion.bill_call(oblivion.call_meters, text, timestamptz, integer, timestamptz, text) IS
  'Charges the price of a call up to until, minus what was billed before. A failure returns status unsettled.';
