-- A meter has its own copy of what each tick reads. The owner corrects it in call_sessions.
CREATE OR REPLACE FUNCTION oblivion.correct_meter()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  UPDATE oblivion.call_meters AS m
  SET started_at = NEW.start_time, user_id = NEW.user_id
  WHERE m.session_id = NEW.id;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.correct_meter() IS
  'Trigger: the meter follows the start and the user of its call.';
