CREATE FUNCTION oblivion.host_presence(host_id text, stale_after interval)
RETURNS TABLE(is_available boolean, room_id text, updated_at timestamp with time zone)
LANGUAGE plpgsql
STABLE SECURITY DEFINER
SET search_path TO ''
AS $function$
DECLARE
  moment pg_catalog.timestamptz = clock_timestamp();
BEGIN
  IF stale_after IS NULL OR stale_after < interval '0' THEN
    RAISE invalid_parameter_value
      USING MESSAGE = format('A host is stale after %s', coalesce(stale_after::pg_catalog.text, 'NULL')),
        HINT = 'Give a time of zero or more';
  END IF;
  RETURN QUERY
  SELECT
    p.is_available AND p.updated_at BETWEEN moment - stale_after AND moment + stale_after,
    p.room_id,
    p.updated_at
  FROM public.user_presence AS p
  WHERE p.host_id = host_presence.host_id;
END
$function$;
