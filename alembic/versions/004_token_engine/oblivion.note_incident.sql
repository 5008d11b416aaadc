-- A call has one open incident, however often its billing fails. If the incident cannot be stored, the call still ends.
CREATE FUNCTION oblivion.note_incident(call uuid, payer text, attempted text, code text, error text)
RETURNS void
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  INSERT INTO oblivion.billing_incidents AS i (session_id, user_id, action, error_code, message)
  VALUES (call, payer, attempted, code, error)
  ON CONFLICT (session_id) WHERE resolved_at IS NULL DO UPDATE
  SET
    action = excluded.action,
    error_code = excluded.error_code,
    message = excluded.message,
    attempts = i.attempts + 1,
    last_at = excluded.last_at;
EXCEPTION
  WHEN OTHERS THEN
    RAISE WARNING 'Call % could not be billed (%: %), and the incident could not be stored: %',
      call, code, error, SQLERRM;
END
$$;

COMMENT ON FUNCTION oblivion.note_incident(uuid, text, text, text, text) IS
  'Opens an incident for a call that could not be billed, or counts another attempt in the open one.';
