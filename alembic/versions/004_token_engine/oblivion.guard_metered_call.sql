-- Only the owner can change what the price of a metered call depends on. If another role sets end_time, the call ends and
-- is billed as by end_call().
CREATE FUNCTION oblivion.guard_metered_call()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  meter oblivion.call_meters;
  bill pg_catalog.record;
BEGIN
  SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = OLD.id FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RETURN NEW;
  END IF;
  IF OLD.end_time IS NULL AND NEW.end_time IS NOT NULL THEN
    NEW.end_time := greatest(clock_timestamp(), meter.seen_at);
  ELSE
    NEW.end_time := OLD.end_time;
  END IF;
  NEW.id := OLD.id;
  NEW.start_time := OLD.start_time;
  NEW.mode := OLD.mode;
  NEW.used_turn := OLD.used_turn;
  NEW.credit_cost := OLD.credit_cost;
  NEW.user_id := OLD.user_id;
  NEW.created_at := OLD.created_at;
  IF OLD.end_time IS NULL AND NEW.end_time IS NOT NULL THEN
    bill := oblivion.bill_call(meter, NEW.end_time, true, 'end');
    NEW.credit_cost := bill.cost;
    PERFORM oblivion.note_outcome(meter, bill.status, NEW.end_time, true, false);
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION oblivion.guard_metered_call() IS
  'Trigger: only the owner can change a metered call; setting end_time ends it as end_call() does.';
