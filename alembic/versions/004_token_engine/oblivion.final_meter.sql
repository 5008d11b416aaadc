-- A page does not say when TURN begins: what its end says applies to the whole call.
CREATE FUNCTION oblivion.final_meter(meter oblivion.call_meters, turn boolean)
RETURNS oblivion.call_meters
LANGUAGE plpgsql
IMMUTABLE
SET search_path = ''
AS $$
BEGIN
  IF meter.by_page THEN
    meter.used_turn := turn;
    meter.tokens_per_minute := CASE WHEN turn THEN meter.turn_rate ELSE meter.direct_rate END;
  END IF;
  RETURN meter;
END
$$;

COMMENT ON FUNCTION oblivion.final_meter(oblivion.call_meters, boolean) IS
  'The meter of a call that ends: for a call of a page with the rate of its end.';
