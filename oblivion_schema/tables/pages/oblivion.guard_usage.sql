-- The engine logs the usage of metered calls. A row that the table refuses, or that is about another user in the
-- authenticated mode, is left to PostgreSQL, so the page gets the error that it got before.
-- A page that logs usage when pages are trusted again has billed the call: then the engine has not.
CREATE OR REPLACE FUNCTION oblivion.guard_usage()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  is_metered CONSTANT boolean := oblivion.page_billing() = 'metered';
  meter pg_catalog.record;
BEGIN
  IF TG_RELID <> 'public.token_usage'::pg_catalog.regclass THEN
    RAISE insufficient_privilege USING MESSAGE = 'Only a trigger of token_usage may do that';
  END IF;
  IF NOT oblivion.is_page() THEN
    RETURN coalesce(NEW, OLD);
  END IF;
  SELECT m.session_id, m.user_id, m.by_page, m.usage_id
  INTO meter
  FROM oblivion.call_meters AS m
  WHERE m.session_id = oblivion.call_id(coalesce(NEW.session_id, OLD.session_id));
  IF NOT FOUND AND TG_OP = 'UPDATE' THEN
    SELECT m.session_id, m.user_id, m.by_page, m.usage_id
    INTO meter
    FROM oblivion.call_meters AS m
    WHERE m.session_id = oblivion.call_id(OLD.session_id);
  END IF;
  IF meter.session_id IS NULL THEN
    RETURN coalesce(NEW, OLD);
  ELSIF NOT is_metered THEN
    IF TG_OP = 'INSERT' AND meter.by_page THEN
      -- Everybody who writes both locks the call before its meter.
      PERFORM FROM public.call_sessions AS c WHERE c.id = meter.session_id FOR NO KEY UPDATE;
      IF NOT oblivion.unmeter_call(meter.session_id) THEN
        RETURN NULL;
      END IF;
      UPDATE public.call_sessions AS c SET credit_cost = 0 WHERE c.id = meter.session_id;
    END IF;
    RETURN coalesce(NEW, OLD);
  ELSIF TG_OP <> 'INSERT' THEN
    RETURN CASE TG_OP WHEN 'UPDATE' THEN OLD END;
  ELSIF (oblivion.open_access() OR NEW.user_id = meter.user_id AND NEW.user_id = oblivion.current_user_id())
    AND NEW.id IS NOT NULL AND NEW.used_turn IS NOT NULL AND NEW.tokens_used >= 0 AND NEW.mode IN ('voice', 'video')
    AND coalesce(NEW.duration_seconds, 0) >= 0
    -- The row of usage that the engine wrote has the account as its foreign key.
    AND (NEW.user_id = meter.user_id AND meter.usage_id IS NOT NULL
      OR EXISTS (SELECT FROM public.user_accounts AS a WHERE a.user_id = NEW.user_id))
  THEN
    RETURN NULL;
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION oblivion.guard_usage() IS
  'Trigger: what a page writes to the usage of a metered call has no effect, if pages are metered.';
