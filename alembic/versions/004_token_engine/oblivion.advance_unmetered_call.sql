-- The client of such a call bills it by itself. Whoever may act for the user of the call can end it, and nothing more.
CREATE FUNCTION oblivion.advance_unmetered_call(session_id uuid, action text, caller text)
RETURNS text
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  call pg_catalog.record;
BEGIN
  SELECT c.user_id, c.end_time
  INTO call
  FROM public.call_sessions AS c
  WHERE c.id = advance_unmetered_call.session_id
  FOR NO KEY UPDATE;
  IF NOT FOUND OR NOT oblivion.may_act_for(call.user_id, caller) THEN
    RETURN 'unknown';
  ELSIF call.end_time IS NOT NULL THEN
    RETURN 'ended';
  ELSIF action = 'end' THEN
    UPDATE public.call_sessions AS c
    SET end_time = clock_timestamp()
    WHERE c.id = advance_unmetered_call.session_id;
  END IF;
  RETURN 'not_billed';
END
$$;

COMMENT ON FUNCTION oblivion.advance_unmetered_call(uuid, text, text) IS
  'The part of advance_call() for a call that is not metered.';
