-- A call that has ended when it is inserted was never seen by the server's clock, and costs nothing.
CREATE FUNCTION oblivion.meter_page_call()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF TG_RELID <> 'public.call_sessions'::pg_catalog.regclass THEN
    RAISE insufficient_privilege USING MESSAGE = 'Only a trigger of call_sessions may do that';
  END IF;
  IF oblivion.page_billing() = 'metered' AND oblivion.is_page() THEN
    PERFORM oblivion.meter_call(NEW.id, NEW.user_id, NEW.mode, clock_timestamp());
    IF NEW.end_time IS NOT NULL THEN
      UPDATE oblivion.call_meters AS m SET is_plain = false, settled = true WHERE m.session_id = NEW.id;
    END IF;
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.meter_page_call() IS 'Trigger: meters a call that a page inserts, if pages are metered.';
