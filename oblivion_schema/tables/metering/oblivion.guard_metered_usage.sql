-- An API role can neither change nor delete the usage rows that the engine wrote. They are deleted together with their
-- account.
CREATE OR REPLACE FUNCTION oblivion.guard_metered_usage()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF EXISTS (SELECT FROM oblivion.call_meters AS m WHERE m.usage_id = OLD.id)
    OR EXISTS (SELECT FROM oblivion.call_segments AS s WHERE s.usage_id = OLD.id)
  THEN
    RETURN CASE TG_OP WHEN 'UPDATE' THEN OLD END;
  END IF;
  RETURN CASE TG_OP WHEN 'UPDATE' THEN NEW ELSE OLD END;
END
$$;

COMMENT ON FUNCTION oblivion.guard_metered_usage() IS
  'Trigger: API roles cannot change or delete the usage rows of metered calls.';
