-- The call changes to the other rate of its meter with the next minute. Minutes that have started keep their price,
-- billed or not. If no minute of the current segment has started, that segment gets the new rate. Returns the new rate
-- in tokens per minute.
CREATE OR REPLACE FUNCTION oblivion.turn_call(meter oblivion.call_meters, turn boolean, seconds double precision)
RETURNS integer
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  minute CONSTANT integer := ceil(greatest(0, seconds) / 60);
  second CONSTANT integer := floor(greatest(0, seconds));
  rate CONSTANT integer := CASE WHEN turn THEN meter.turn_rate ELSE meter.direct_rate END;
  due_after CONSTANT bigint := meter.due_before + (minute - meter.first_minute)::bigint * meter.tokens_per_minute;
BEGIN
  IF minute > meter.first_minute THEN
    -- Read the meter again: the bill that was just made may have changed its shortfall.
    INSERT INTO oblivion.call_segments (
      session_id, number, usage_id, used_turn, tokens_per_minute, rate_from,
      first_minute, minutes, seconds, due_before, due_after, shortfall
    )
    SELECT
      m.session_id,
      m.segment,
      m.usage_id,
      m.used_turn,
      m.tokens_per_minute,
      CASE WHEN m.used_turn THEN m.turn_rate_from ELSE m.direct_rate_from END,
      m.first_minute,
      minute - m.first_minute,
      second - m.first_second,
      m.due_before,
      due_after,
      m.shortfall
    FROM oblivion.call_meters AS m
    WHERE m.session_id = meter.session_id;
    UPDATE oblivion.call_meters AS m
    SET
      segment = m.segment + 1,
      usage_id = gen_random_uuid(),
      first_minute = minute,
      first_second = second,
      due_before = due_after,
      shortfall = 0
    WHERE m.session_id = meter.session_id;
  END IF;
  UPDATE oblivion.call_meters AS m
  SET used_turn = turn, tokens_per_minute = rate
  WHERE m.session_id = meter.session_id;
  RETURN rate;
END
$$;

COMMENT ON FUNCTION oblivion.turn_call(oblivion.call_meters, boolean, double precision) IS
  'Changes the rate of a call between direct and TURN, in a new segment if a minute of the current one has started.';
