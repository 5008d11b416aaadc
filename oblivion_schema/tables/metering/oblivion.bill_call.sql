-- Charges the price of the call up to `until`, minus what was billed before. So the total does not depend on how often,
-- how late or in which order it is called.
-- The caller holds the locks of the call and of its meter. Everybody who bills locks the call if it writes it, then its
-- meter, then the account.
CREATE OR REPLACE FUNCTION oblivion.bill_call(
  meter oblivion.call_meters,
  until timestamptz,
  is_over boolean,
  action text,
  OUT status text,
  OUT charged integer,
  OUT shortfall integer,
  OUT balance integer,
  OUT minutes integer,
  OUT cost integer
)
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  seconds double precision;
  patience CONSTANT pg_catalog.text := current_setting('lock_timeout');
  setting pg_catalog.text;
  segment pg_catalog.record;
  due bigint;
  missing integer;
  total bigint := meter.cost;
BEGIN
  status := 'not_billed';
  charged := 0;
  shortfall := 0;
  minutes := 0;
  cost := meter.cost;
  IF meter.user_id IS NULL OR starts_with(meter.user_id, 'anonymous_') THEN
    RETURN;
  END IF;
  BEGIN
    IF patience = '0' THEN
      -- A session that locks the account for long must not keep the call from ending, nor make the statement time out.
      setting := current_setting('statement_timeout');
      setting := set_config('lock_timeout', CASE
        WHEN setting = '0' THEN '1200ms'
        ELSE ceil(least(1200, 400 * date_part('epoch', setting::interval)))::pg_catalog.text
      END, true);
    END IF;
    SELECT a.tokens_remaining INTO balance
    FROM public.user_accounts AS a
    WHERE a.user_id = meter.user_id
    FOR NO KEY UPDATE;
    IF patience = '0' THEN
      setting := set_config('lock_timeout', '0', true);
    END IF;
    IF balance IS NULL THEN
      RETURN;
    END IF;
    seconds := greatest(0, date_part('epoch', until - meter.started_at));
    minutes := ceil(seconds / 60);
    -- The current segment, and earlier ones that could not be billed or logged in their time.
    FOR segment IN
      SELECT s.number, s.usage_id, s.used_turn, s.tokens_per_minute, s.due_before, s.due_after, s.seconds, true AS is_over
      FROM oblivion.call_segments AS s
      WHERE s.session_id = meter.session_id AND (s.due_after > meter.cost OR NOT s.is_logged)
      UNION ALL
      SELECT
        meter.segment, meter.usage_id, meter.used_turn, meter.tokens_per_minute, meter.due_before,
        meter.due_before + (minutes - meter.first_minute)::bigint * meter.tokens_per_minute,
        floor(seconds) - meter.first_second, bill_call.is_over
      ORDER BY 1
    LOOP
      due := greatest(0, segment.due_after - total);
      missing := greatest(0, due - (balance - charged));
      total := total + due;
      IF total > 999999 THEN
        RAISE numeric_value_out_of_range
          USING MESSAGE = format('The call would cost %s tokens, more than credit_cost can hold', total),
            HINT = 'Set its start_time or end_time right, then call settle_calls()';
      END IF;
      charged := charged + due - missing;
      shortfall := shortfall + missing;
      IF segment.is_over
        AND (total > segment.due_before OR segment.tokens_per_minute = 0 AND segment.seconds > 0)
      THEN
        -- A reaped call that goes on has a row already.
        UPDATE public.token_usage AS u
        SET
          tokens_used = total - segment.due_before,
          used_turn = segment.used_turn,
          duration_seconds = greatest(0, segment.seconds)
        WHERE u.id = segment.usage_id;
        IF NOT FOUND THEN
          segment.usage_id := gen_random_uuid();
          INSERT INTO public.token_usage (
            id, user_id, session_id, tokens_used, mode, used_turn, duration_seconds, "timestamp"
          )
          VALUES (
            segment.usage_id, meter.user_id, meter.session_id, total - segment.due_before, meter.mode, segment.used_turn,
            greatest(0, segment.seconds), clock_timestamp()
          );
        END IF;
      END IF;
      IF segment.number = meter.segment THEN
        UPDATE oblivion.call_meters AS m
        SET cost = total, shortfall = m.shortfall + missing, usage_id = segment.usage_id
        WHERE m.session_id = meter.session_id;
      ELSE
        UPDATE oblivion.call_segments AS s
        SET shortfall = s.shortfall + missing, usage_id = segment.usage_id, is_logged = true
        WHERE s.session_id = meter.session_id AND s.number = segment.number;
      END IF;
    END LOOP;
    IF charged > 0 THEN
      setting := set_config('oblivion.reason', 'charge ' || meter.session_id, true);
      UPDATE public.user_accounts AS a
      SET tokens_remaining = a.tokens_remaining - charged
      WHERE a.user_id = meter.user_id
      RETURNING a.tokens_remaining + charged - bill_call.balance INTO missing;
      setting := set_config('oblivion.reason', '', true);
      balance := balance - charged;
      IF missing IS DISTINCT FROM 0 THEN
        RAISE triggered_data_change_violation
          USING MESSAGE = 'A trigger on user_accounts changed or dropped the balance that was written',
            HINT = 'Let it leave tokens_remaining alone, then call settle_calls()';
      END IF;
    END IF;
    cost := total;
    status := CASE WHEN shortfall > 0 THEN 'short' ELSE 'ok' END;
  EXCEPTION
    WHEN OTHERS THEN
      -- The call goes on, or ends, all the same. Its next tick or settle_calls() charges it.
      status := 'unsettled';
      charged := 0;
      shortfall := 0;
      balance := NULL;
      minutes := NULL;
      PERFORM oblivion.note_incident(meter.session_id, meter.user_id, action, SQLSTATE, SQLERRM);
  END;
END
$$;

COMMENT ON FUNCTION oblivion.bill_call(oblivion.call_meters, timestamptz, boolean, text) IS
  'Charges the price of a call up to until, minus what was billed before, and logs the usage of segments that are over. A '
  'failure returns status unsettled.';
