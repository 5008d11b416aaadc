-- What a bill has made of a call: only one that has ended, and is billed, is settled.
CREATE OR REPLACE FUNCTION oblivion.note_outcome(call uuid, status text, has_ended boolean, is_reaped boolean)
RETURNS void
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  UPDATE oblivion.call_meters AS m
  SET settled = has_ended AND status <> 'unsettled', reaped = is_reaped, has_incident = status = 'unsettled'
  WHERE m.session_id = call;
  UPDATE oblivion.billing_incidents AS i
  SET resolved_at = clock_timestamp()
  WHERE i.session_id = call AND i.resolved_at IS NULL AND status <> 'unsettled';
END
$$;
