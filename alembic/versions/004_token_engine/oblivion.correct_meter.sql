-- A meter has its own copy of what each tick reads. The owner corrects it in call_sessions. The next tick of the call
-- reads both, so it finds a call that the owner ended, or that nobody pays any more.
-- A call of a page is billed by the server's clock, whatever its start_time says. An end that the owner gives it is by
-- that clock, too. The engine itself writes such a call at a greater depth of triggers, or says that it charges.
CREATE FUNCTION oblivion.correct_meter()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  moves_end CONSTANT boolean := pg_trigger_depth() = 1 AND NEW.end_time IS DISTINCT FROM OLD.end_time;
BEGIN
  IF TG_RELID <> 'public.call_sessions'::pg_catalog.regclass THEN
    RAISE insufficient_privilege USING MESSAGE = 'Only a trigger of call_sessions may do that';
  END IF;
  IF OLD.end_time IS NOT NULL AND NEW.end_time IS NOT NULL AND pg_trigger_depth() > 1
    AND (NEW.start_time, NEW.user_id) IS NOT DISTINCT FROM (OLD.start_time, OLD.user_id)
  THEN
    -- The end that a page wrote becomes what is true.
    RETURN NULL;
  END IF;
  UPDATE oblivion.call_meters AS m
  SET
    started_at = CASE
      WHEN m.by_page OR NEW.start_time IS NOT DISTINCT FROM OLD.start_time THEN m.started_at
      ELSE NEW.start_time
    END,
    seen_at = CASE
      WHEN NOT m.by_page OR NOT moves_end OR NEW.end_time IS NULL THEN m.seen_at
      WHEN OLD.end_time IS NULL OR NOT isfinite(OLD.end_time) THEN NEW.end_time
      WHEN isfinite(OLD.start_time) AND isfinite(NEW.start_time)
        THEN m.seen_at + (NEW.end_time - OLD.end_time) - (NEW.start_time - OLD.start_time)
      ELSE m.seen_at + (NEW.end_time - OLD.end_time)
    END,
    user_id = NEW.user_id,
    is_plain = false,
    settled = m.settled AND NEW.end_time IS NOT NULL
  WHERE m.session_id = NEW.id
    AND (NEW.end_time IS NOT NULL AND m.is_plain OR NEW.end_time IS NULL AND m.settled OR m.by_page AND moves_end
      OR (NEW.start_time, NEW.user_id) IS DISTINCT FROM (OLD.start_time, OLD.user_id));
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.correct_meter() IS
  'Trigger: the meter follows the start, the end and the user of its call.';
