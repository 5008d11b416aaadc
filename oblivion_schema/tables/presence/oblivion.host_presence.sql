-- Runs as the owner, whom policies do not bind: a visitor may read these columns of one host, but never room_token.
-- Uses clock_timestamp(), because no committed heartbeat is later than that. A row that is later by more than
-- stale_after is not a heartbeat: clients wrote such times in databases that were made by hand.
CREATE OR REPLACE FUNCTION oblivion.host_presence(host_id text, stale_after interval)
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
      USING MESSAGE = format('stale_after is %s', coalesce(stale_after::pg_catalog.text, 'NULL')),
        HINT = 'Give an interval of zero or more';
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

COMMENT ON FUNCTION oblivion.host_presence(text, interval) IS 'Implements public.host_presence(), as the owner.';
