-- A call that somebody deletes is billed first; where that fails it stays, for with it goes what is known of its price.
CREATE FUNCTION oblivion.settle_deleted_call()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  meter oblivion.call_meters;
  bill pg_catalog.record;
BEGIN
  SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = OLD.id AND NOT m.settled FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN OLD;
  END IF;
  bill := oblivion.bill_call(
    meter,
    OLD.user_id,
    OLD.start_time,
    OLD.credit_cost::integer,
    coalesce(OLD.end_time, clock_timestamp()),
    'delete'
  );
  IF bill.status = 'unsettled' THEN
    RAISE object_not_in_prerequisite_state
      USING MESSAGE = format('Call %s cannot be billed, and so not be deleted', OLD.id),
        HINT = 'After end_call() oblivion.billing_incidents tells why';
  END IF;
  PERFORM oblivion.note_outcome(OLD.id, bill.status, true, meter.reaped, meter.has_incident);
  RETURN OLD;
END
$$;

COMMENT ON FUNCTION oblivion.settle_deleted_call() IS 'Trigger: bills a metered call before somebody deletes it.';
