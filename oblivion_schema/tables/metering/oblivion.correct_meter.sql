-- A meter has its own copy of what each tick reads. The owner corrects it in call_sessions. The next tick of the call
-- reads both, so it finds a call that the owner ended, or that nobody pays any more.
CREATE OR REPLACE FUNCTION oblivion.correct_meter()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  UPDATE oblivion.call_meters AS m
  SET
    started_at = NEW.start_time,
    user_id = NEW.user_id,
    is_plain = false,
    settled = m.settled AND NEW.end_time IS NOT NULL
  WHERE m.session_id = NEW.id
    AND (NEW.end_time IS NOT NULL OR m.settled
      OR (m.started_at, m.user_id) IS DISTINCT FROM (NEW.start_time, NEW.user_id));
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.correct_meter() IS
  'Trigger: the meter follows the start, the end and the user of its call.';
