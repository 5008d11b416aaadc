-- A metered call is billed before it is deleted. If billing fails the call stays, because its price would be lost with
-- it.
CREATE FUNCTION oblivion.settle_deleted_call()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  meter oblivion.call_meters;
  until timestamp with time zone;
  bill pg_catalog.record;
BEGIN
  IF TG_RELID <> 'public.call_sessions'::pg_catalog.regclass THEN
    RAISE insufficient_privilege USING MESSAGE = 'Only a trigger of call_sessions may do that';
  END IF;
  SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = OLD.id AND NOT m.settled FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN OLD;
  END IF;
  meter := oblivion.final_meter(meter, OLD.used_turn);
  until := CASE
    WHEN OLD.end_time IS NULL THEN oblivion.last_moment(meter)
    WHEN meter.by_page THEN meter.seen_at
    ELSE OLD.end_time
  END;
  bill := oblivion.bill_call(meter, until, true, 'delete');
  IF bill.status = 'unsettled' THEN
    RAISE object_not_in_prerequisite_state
      USING MESSAGE = format('Call %s cannot be deleted, because it cannot be billed', OLD.id),
        HINT = 'Call end_call(), then read the error in oblivion.billing_incidents';
  END IF;
  PERFORM oblivion.note_outcome(meter, bill.status, until, true, meter.reaped);
  RETURN OLD;
END
$$;

COMMENT ON FUNCTION oblivion.settle_deleted_call() IS 'Trigger: bills a metered call before it is deleted.';
