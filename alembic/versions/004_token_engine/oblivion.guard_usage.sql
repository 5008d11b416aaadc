-- The engine logs the usage of metered calls. A row that the table refuses, or that is about another user in the
-- authenticated mode, is left to PostgreSQL, so the page gets the error that it got before.
-- A page that logs usage while pages are trusted has billed the call: then the engine did not.
CREATE FUNCTION oblivion.guard_usage()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  logged CONSTANT public.token_usage := CASE TG_OP WHEN 'INSERT' THEN NEW ELSE OLD END;
  meter oblivion.call_meters;
BEGIN
  IF oblivion.is_page() AND logged.session_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
    SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = logged.session_id::pg_catalog.uuid;
  END IF;
  IF meter.session_id IS NULL THEN
    NULL;
  ELSIF oblivion.page_billing() = 'metered' THEN
    IF TG_OP <> 'INSERT' THEN
      RETURN CASE TG_OP WHEN 'UPDATE' THEN OLD END;
    ELSIF (oblivion.open_access() OR NEW.user_id = meter.user_id AND NEW.user_id = oblivion.current_user_id())
      AND NEW.id IS NOT NULL AND NEW.used_turn IS NOT NULL AND NEW.tokens_used >= 0 AND NEW.mode IN ('voice', 'video')
      AND coalesce(NEW.duration_seconds, 0) >= 0
      AND EXISTS (SELECT FROM public.user_accounts AS a WHERE a.user_id = NEW.user_id)
    THEN
      RETURN NULL;
    END IF;
  ELSIF TG_OP = 'INSERT' AND meter.by_page THEN
    PERFORM oblivion.unmeter_call(meter.session_id);
    UPDATE public.call_sessions AS c SET credit_cost = 0 WHERE c.id = meter.session_id;
  END IF;
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;

COMMENT ON FUNCTION oblivion.guard_usage() IS
  'Trigger: what a page writes to the usage of a metered call has no effect, if pages are metered.';
