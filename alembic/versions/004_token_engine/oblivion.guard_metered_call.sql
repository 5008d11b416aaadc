-- Only the owner can change what the price of a metered call depends on. If another role sets end_time, the call ends and
-- is billed as by end_call(). What a page sets at the end of its own call stays until bill_page_call() has read it.
-- How pages are billed when a page ends its call decides: a call that was open when that changed is billed once. A call
-- from before that has no meter. It gets one from its created_at on, unless that is long ago: then its end was lost, and
-- anybody may write another.
CREATE FUNCTION oblivion.guard_metered_call()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  is_page CONSTANT boolean := oblivion.is_page();
  meter oblivion.call_meters;
  bill pg_catalog.record;
BEGIN
  IF TG_RELID <> 'public.call_sessions'::pg_catalog.regclass THEN
    RAISE insufficient_privilege USING MESSAGE = 'Only a trigger of call_sessions may do that';
  END IF;
  SELECT m.session_id, m.by_page, m.reaped
  INTO meter.session_id, meter.by_page, meter.reaped
  FROM oblivion.call_meters AS m
  WHERE m.session_id = OLD.id;
  IF meter.session_id IS NULL THEN
    IF is_page AND oblivion.page_billing() = 'metered' THEN
      NEW.id := OLD.id;
      NEW.user_id := OLD.user_id;
      NEW.created_at := OLD.created_at;
      NEW.end_time := coalesce(NEW.end_time, OLD.end_time);
      IF NOT oblivion.open_access() THEN
        NEW.credit_cost := OLD.credit_cost;
      END IF;
      IF OLD.end_time IS NULL AND NEW.end_time IS NOT NULL AND OLD.created_at > clock_timestamp() - interval '12 hours' THEN
        PERFORM oblivion.meter_call(OLD.id, OLD.user_id, OLD.mode, least(OLD.created_at, clock_timestamp()));
      END IF;
    END IF;
    RETURN NEW;
  ELSIF is_page AND meter.by_page AND NEW.end_time IS DISTINCT FROM OLD.end_time
    AND (OLD.end_time IS NULL OR meter.reaped) AND oblivion.page_billing() = 'trusted'
  THEN
    PERFORM oblivion.unmeter_call(OLD.id);
    -- What the engine wrote, if the page writes nothing.
    NEW.credit_cost := CASE WHEN NEW.credit_cost = OLD.credit_cost THEN 0 ELSE NEW.credit_cost END;
    RETURN NEW;
  END IF;
  NEW.id := OLD.id;
  NEW.start_time := OLD.start_time;
  NEW.user_id := OLD.user_id;
  NEW.created_at := OLD.created_at;
  IF meter.by_page THEN
    -- A mode that the table refuses is left to it.
    NEW.mode := CASE WHEN NEW.mode IN ('video', 'voice-only') THEN OLD.mode ELSE NEW.mode END;
    RETURN NEW;
  END IF;
  NEW.mode := OLD.mode;
  NEW.used_turn := OLD.used_turn;
  NEW.credit_cost := OLD.credit_cost;
  SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = OLD.id FOR NO KEY UPDATE;
  IF OLD.end_time IS NULL AND NEW.end_time IS NOT NULL THEN
    NEW.end_time := greatest(clock_timestamp(), meter.seen_at);
    bill := oblivion.bill_call(meter, NEW.end_time, true, 'end');
    NEW.credit_cost := bill.cost;
    PERFORM oblivion.note_outcome(meter, bill.status, NEW.end_time, true, false);
  ELSE
    NEW.end_time := OLD.end_time;
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION oblivion.guard_metered_call() IS
  'Trigger: only the owner can change a metered call; setting end_time ends it as end_call() does.';
