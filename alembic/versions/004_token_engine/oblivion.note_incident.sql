-- One open incident for each call, however often it fails. That it could not be noted keeps no call from its end, either.
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
    RAISE WARNING 'No incident noted for call %, which could not be billed (%: %): %', call, code, error, SQLERRM;
END
$$;

COMMENT ON FUNCTION oblivion.note_incident(uuid, text, text, text, text) IS 'Notes that a call could not be billed.';
