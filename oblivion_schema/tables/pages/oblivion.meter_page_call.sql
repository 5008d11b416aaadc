CREATE OR REPLACE FUNCTION oblivion.meter_page_call()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF oblivion.page_billing() = 'metered' AND oblivion.is_page() THEN
    PERFORM oblivion.meter_call(NEW, clock_timestamp());
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.meter_page_call() IS 'Trigger: meters a call that a page inserts, if pages are metered.';
