CREATE FUNCTION oblivion.guard_metered_usage()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path TO ''
AS $function$
BEGIN
  IF EXISTS (SELECT FROM oblivion.call_meters AS m WHERE m.usage_id = OLD.id)
    OR EXISTS (SELECT FROM oblivion.call_segments AS s WHERE s.usage_id = OLD.id)
  THEN
    RETURN CASE TG_OP WHEN 'UPDATE' THEN OLD END;
  END IF;
  RETURN CASE TG_OP WHEN 'UPDATE' THEN NEW ELSE OLD END;
END
$function$;
