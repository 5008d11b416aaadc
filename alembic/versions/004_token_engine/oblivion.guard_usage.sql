-- The engine logs the usage of metered calls. A row that the table refuses, or that is about another user in the
-- authenticated mode, is left to PostgreSQL, so the page gets the error that it got before.
-- Pages may be switched between two requests of a page. What its write of the balance did decides: if it took the tokens
-- that it logs now, the page has billed the call, and the engine has not; otherwise the engine has.
CREATE FUNCTION oblivion.guard_usage()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  unchanged CONSTANT public.token_usage := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
  is_metered CONSTANT boolean := oblivion.page_billing() = 'metered';
  meter oblivion.call_meters;
BEGIN
  IF NOT oblivion.is_page() THEN
    RETURN unchanged;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = oblivion.call_id(OLD.session_id);
  END IF;
  IF meter.session_id IS NULL THEN
    SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = oblivion.call_id(unchanged.session_id);
  END IF;
  IF TG_OP <> 'INSERT' THEN
    RETURN CASE WHEN NOT is_metered OR meter.session_id IS NULL THEN unchanged WHEN TG_OP = 'UPDATE' THEN OLD END;
  ELSIF (
    (oblivion.open_access()
      OR NEW.user_id = oblivion.current_user_id() AND NEW.user_id = coalesce(meter.user_id, NEW.user_id))
    AND NEW.id IS NOT NULL AND NEW.used_turn IS NOT NULL AND NEW.tokens_used >= 0 AND NEW.mode IN ('voice', 'video')
    AND coalesce(NEW.duration_seconds, 0) >= 0
    AND EXISTS (SELECT FROM public.user_accounts AS a WHERE a.user_id = NEW.user_id)
  ) IS NOT TRUE THEN
    RETURN NEW;
  ELSIF meter.session_id IS NULL THEN
    RETURN CASE WHEN is_metered AND oblivion.take_over_call(NEW) THEN NULL ELSE NEW END;
  ELSIF meter.by_page AND oblivion.page_took(NEW, meter.seen_at) THEN
    PERFORM oblivion.unmeter_call(meter.session_id);
    UPDATE public.call_sessions AS c SET credit_cost = 0 WHERE c.id = meter.session_id;
    RETURN NEW;
  END IF;
  RETURN CASE WHEN is_metered OR meter.by_page THEN NULL ELSE NEW END;
END
$$;

COMMENT ON FUNCTION oblivion.guard_usage() IS
  'Trigger: what a page writes to the usage of a metered call has no effect, if pages are metered.';
