-- A call is settled only if it has ended and was billed.
CREATE FUNCTION oblivion.note_outcome(
  call uuid, status text, has_ended boolean, is_reaped boolean, had_incident boolean
)
RETURNS void
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  UPDATE oblivion.call_meters AS m
  SET settled = has_ended AND status <> 'unsettled', reaped = is_reaped, has_incident = status = 'unsettled'
  WHERE m.session_id = call;
  IF had_incident AND status <> 'unsettled' THEN
    UPDATE oblivion.billing_incidents AS i
    SET resolved_at = clock_timestamp()
    WHERE i.session_id = call AND i.resolved_at IS NULL;
  END IF;
END
$$;

COMMENT ON FUNCTION oblivion.note_outcome(uuid, text, boolean, boolean, boolean) IS
  'Stores the outcome of a bill in the meter; resolves the open incident if the bill succeeded.';
