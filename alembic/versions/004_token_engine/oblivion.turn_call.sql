-- The call changes to the other rate of its meter with the next minute. Minutes that have started keep their price,
-- billed or not. If no minute of the current segment has started, that segment gets the new rate.
CREATE FUNCTION oblivion.turn_call(
  meter oblivion.call_meters, turn boolean, minute integer, second integer, is_logged boolean
)
RETURNS void
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  due_after CONSTANT bigint := meter.due_before + (minute - meter.first_minute)::bigint * meter.tokens_per_minute;
BEGIN
  IF minute > meter.first_minute THEN
    -- Read the meter again: the bill that was just made may have changed it.
    INSERT INTO oblivion.call_segments (
      session_id, number, usage_id, is_logged, used_turn, tokens_per_minute, rate_from,
      first_minute, minutes, seconds, due_before, due_after, shortfall
    )
    SELECT
      m.session_id,
      m.segment,
      m.usage_id,
      is_logged,
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
      usage_id = NULL,
      first_minute = minute,
      first_second = second,
      due_before = due_after,
      shortfall = 0
    WHERE m.session_id = meter.session_id;
  END IF;
  UPDATE oblivion.call_meters AS m
  SET used_turn = turn, tokens_per_minute = CASE WHEN turn THEN m.turn_rate ELSE m.direct_rate END
  WHERE m.session_id = meter.session_id;
END
$$;

COMMENT ON FUNCTION oblivion.turn_call(oblivion.call_meters, boolean, integer, integer, boolean) IS
  'Changes the rate of a call between direct and TURN, in a new segment if a minute of the current one has started.';
