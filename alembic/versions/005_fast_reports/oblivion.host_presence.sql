-- As the owner, whom policies do not bind: a visitor may know of one host what this selects, and never the room_token.
-- The clock is that of this moment, which no committed heartbeat is ahead of; a row from further ahead than stale_after,
-- as databases that were made by hand took them from clients, is nobody's heartbeat either.
CREATE FUNCTION oblivion.host_presence(host_id text, stale_after interval)
RETURNS TABLE (is_available boolean, room_id text, updated_at timestamptz)
LANGUAGE plpgsql
STABLE SECURITY DEFINER
SET search_path = ''
AS $$
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
$$;

COMMENT ON FUNCTION oblivion.host_presence(text, interval) IS
  'What anybody may know of a host, past row level security.';
