-- A page whose call goes on for longer without a sign has forgotten it, or somebody else remembers it.
CREATE FUNCTION oblivion.is_fresh(meter oblivion.call_meters)
RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = ''
AS $$
BEGIN
  RETURN meter.seen_at > clock_timestamp() - interval '12 hours';
END
$$;

COMMENT ON FUNCTION oblivion.is_fresh(oblivion.call_meters) IS 'Whether a call was seen in the last 12 hours.';
