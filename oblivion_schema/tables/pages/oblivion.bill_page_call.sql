-- It runs after the page's UPDATE, so that the page gets back the row that it wrote, as ever. Then the row gets what is
-- true: the TURN of its end prices the whole call, and the call is as long as the server's clock measured.
-- Its trigger comes before correct_meter, in the order of their names: otherwise that would take the call for one that
-- the owner ended.
CREATE OR REPLACE FUNCTION oblivion.bill_page_call()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  meter oblivion.call_meters;
  until timestamp with time zone;
  bill pg_catalog.record;
  state oblivion.live_calls;
BEGIN
  IF TG_RELID <> 'public.call_sessions'::pg_catalog.regclass THEN
    RAISE insufficient_privilege USING MESSAGE = 'Only a trigger of call_sessions may do that';
  END IF;
  IF oblivion.page_billing() = 'metered' AND OLD.end_time IS NULL AND NEW.end_time IS NOT NULL
    AND NOT starts_with(NEW.user_id, 'anonymous_')
  THEN
    state := oblivion.end_call(NEW.id, 'service_role');
    IF state.session_id IS NOT NULL THEN
      RETURN NULL;
    END IF;
  END IF;
  SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = NEW.id AND m.by_page FOR NO KEY UPDATE;
  IF meter.session_id IS NULL THEN
    RETURN NULL;
  ELSIF NEW.end_time IS NOT NULL
    AND (OLD.end_time IS NULL OR meter.reaped AND NEW.end_time <> OLD.end_time AND oblivion.is_fresh(meter))
  THEN
    until := oblivion.last_moment(meter);
    meter := oblivion.final_meter(meter, NEW.used_turn);
    bill := oblivion.bill_call(meter, until, true, 'end');
    PERFORM oblivion.note_outcome(meter, bill.status, until, true, false);
    NEW.end_time := until + oblivion.page_lag(meter, NEW.start_time);
    NEW.credit_cost := bill.cost;
  ELSE
    -- The call goes on, or a second tab ends it again.
    NEW.end_time := OLD.end_time;
    NEW.credit_cost := OLD.credit_cost;
    IF OLD.end_time IS NOT NULL THEN
      NEW.used_turn := OLD.used_turn;
    END IF;
  END IF;
  UPDATE public.call_sessions AS c
  SET end_time = NEW.end_time, credit_cost = NEW.credit_cost, used_turn = NEW.used_turn
  WHERE c.id = NEW.id
    AND (c.end_time, c.credit_cost, c.used_turn) IS DISTINCT FROM (NEW.end_time, NEW.credit_cost, NEW.used_turn);
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.bill_page_call() IS
  'Trigger: ends and bills the metered call of a page once the page has set its end_time; corrects what else it wrote.';
