-- Undoes what the engine billed, because the page bills the call by itself: each call is billed once.
CREATE FUNCTION oblivion.unmeter_call(call uuid)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  meter oblivion.call_meters;
  charged integer;
BEGIN
  SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = call FOR NO KEY UPDATE;
  charged := meter.cost - meter.shortfall - meter.refunded;
  IF charged > 0 THEN
    PERFORM oblivion.credit_account(
      meter.user_id, charged, 'unmetered ' || gen_random_uuid(), 'refund', meter.session_id, charged
    );
  END IF;
  DELETE FROM public.token_usage AS u WHERE u.id = meter.usage_id;
  UPDATE oblivion.billing_incidents AS i
  SET resolved_at = clock_timestamp()
  WHERE i.session_id = meter.session_id AND i.resolved_at IS NULL;
  DELETE FROM oblivion.call_meters AS m WHERE m.session_id = meter.session_id;
  RETURN true;
EXCEPTION
  WHEN OTHERS THEN
    -- The page's own request goes on. The owner reads here that the call is billed twice, and can refund it.
    PERFORM oblivion.note_incident(call, meter.user_id, 'unmeter', SQLSTATE, SQLERRM);
    RETURN false;
END
$$;

COMMENT ON FUNCTION oblivion.unmeter_call(uuid) IS
  'Gives back what a call of a page was charged, and deletes its meter: the page bills the call. Returns whether it '
  'could; if not, there is an incident.';
