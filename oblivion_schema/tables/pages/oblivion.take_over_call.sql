-- Pages were metered in the middle of the page's requests: its write of the balance had no effect, and now it logs the
-- usage of a call that has no meter.
CREATE OR REPLACE FUNCTION oblivion.take_over_call(usage public.token_usage)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  call public.call_sessions;
  until timestamp with time zone;
  meter oblivion.call_meters;
  bill pg_catalog.record;
BEGIN
  SELECT c.*
  INTO call
  FROM public.call_sessions AS c
  WHERE c.id = oblivion.call_id(usage.session_id) AND c.user_id = usage.user_id AND c.end_time IS NOT NULL
    AND c.updated_at > clock_timestamp() - interval '1 minute'
    AND NOT EXISTS (SELECT FROM public.token_usage AS u WHERE u.session_id = usage.session_id)
    AND NOT oblivion.page_took(usage, c.updated_at)
  FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  -- As in guard_metered_call().
  until := least(call.updated_at, clock_timestamp());
  PERFORM oblivion.meter_call(call, greatest(call.created_at, until - interval '12 hours'));
  SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = call.id FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  meter := oblivion.final_meter(meter, call.used_turn);
  bill := oblivion.bill_call(meter, until, true, 'end');
  PERFORM oblivion.note_outcome(meter, bill.status, until, true, false);
  UPDATE public.call_sessions AS c
  SET end_time = until + oblivion.page_lag(meter, call.start_time), credit_cost = bill.cost
  WHERE c.id = call.id;
  RETURN true;
END
$$;

COMMENT ON FUNCTION oblivion.take_over_call(public.token_usage) IS
  'Bills a call that its page ended just before pages were metered, and whose bill had no effect. usage: what the page '
  'logs. Returns whether it did.';
