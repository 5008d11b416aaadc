-- What PostgREST calls. Its body was bound to the function in schema oblivion when it was made, so that whoever may call
-- this one needs no right to that schema. Browsers let the timers of a hidden page run once a minute: two minutes forgive
-- such a host one heartbeat that is late or lost.
CREATE FUNCTION public.host_presence(host_id text, stale_after interval DEFAULT interval '2 minutes')
RETURNS TABLE (is_available boolean, room_id text, updated_at timestamptz)
LANGUAGE sql
STABLE
SET search_path = ''
BEGIN ATOMIC
  SELECT h.is_available, h.room_id, h.updated_at
  FROM oblivion.host_presence(host_presence.host_id, host_presence.stale_after) AS h;
END;

COMMENT ON FUNCTION public.host_presence(text, interval) IS
  'Whether a host takes calls, where, and when the host was last heard of; away when that is longer ago than '
  'stale_after by the server''s clock, 2 minutes unless it is given; no row for one that is not known.';
