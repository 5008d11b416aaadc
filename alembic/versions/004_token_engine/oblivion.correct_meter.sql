-- A meter has its own copy of what each tick reads. The owner corrects it in call_sessions. The next tick of the call
-- reads both, so it finds a call that the owner ended, or that nobody pays any more.
CREATE FUNCTION oblivion.correct_meter()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  UPDATE oblivion.call_meters AS m
  SET
    started_at = CASE WHEN NEW.start_time IS DISTINCT FROM OLD.start_time THEN NEW.start_time ELSE m.started_at END,
    user_id = NEW.user_id,
    is_plain = false,
    settled = m.settled AND NEW.end_time IS NOT NULL
  WHERE m.session_id = NEW.id
    AND (NEW.end_time IS NOT NULL AND m.is_plain OR NEW.end_time IS NULL AND m.settled
      OR (NEW.start_time, NEW.user_id) IS DISTINCT FROM (OLD.start_time, OLD.user_id));
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.correct_meter() IS
  'Trigger: the meter follows the start, the end and the user of its call.';
