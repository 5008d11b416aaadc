-- A call is settled only if it has ended and was billed. It is plain again once it goes on, a bill was paid in full, and
-- token_usage has no row of its segment yet.
CREATE OR REPLACE FUNCTION oblivion.note_outcome(
  meter oblivion.call_meters, status text, until timestamptz, has_ended boolean, is_reaped boolean
)
RETURNS oblivion.call_meters
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  noted oblivion.call_meters;
BEGIN
  UPDATE oblivion.call_meters AS m
  SET
    seen_at = until,
    used_turn = CASE WHEN m.by_page THEN meter.used_turn ELSE m.used_turn END,
    tokens_per_minute = CASE WHEN m.by_page THEN meter.tokens_per_minute ELSE m.tokens_per_minute END,
    is_plain = status = 'ok' AND NOT has_ended AND m.usage_id IS NULL,
    settled = has_ended AND status <> 'unsettled',
    reaped = is_reaped,
    has_incident = status = 'unsettled'
  WHERE m.session_id = meter.session_id
  RETURNING m.* INTO noted;
  IF meter.has_incident AND status <> 'unsettled' THEN
    UPDATE oblivion.billing_incidents AS i
    SET resolved_at = clock_timestamp()
    WHERE i.session_id = meter.session_id AND i.resolved_at IS NULL;
  END IF;
  RETURN noted;
END
$$;

COMMENT ON FUNCTION oblivion.note_outcome(oblivion.call_meters, text, timestamptz, boolean, boolean) IS
  'Stores the outcome of a bill in the meter, and returns it; resolves the open incident if the bill succeeded.';
