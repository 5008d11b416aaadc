CREATE FUNCTION oblivion.clear_rollups()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path TO ''
AS $function$
BEGIN
  IF TG_TABLE_NAME = 'token_usage' THEN
    TRUNCATE oblivion.usage_deltas, oblivion.daily_usage, oblivion.user_usage;
  ELSE
    TRUNCATE oblivion.call_deltas, oblivion.daily_calls;
  END IF;
  RETURN NULL;
END
$function$;
