-- PostgREST calls this function. Its body was bound to the function in schema oblivion at creation, so a caller needs
-- no privilege on that schema.
-- Browsers run the timers of a hidden page only once a minute: two minutes allow such a host one heartbeat that is late
-- or lost.
CREATE OR REPLACE FUNCTION public.host_presence(host_id text, stale_after interval DEFAULT interval '2 minutes')
RETURNS TABLE (is_available boolean, room_id text, updated_at timestamptz)
LANGUAGE sql
STABLE
SET search_path = ''
BEGIN ATOMIC
  SELECT h.is_available, h.room_id, h.updated_at
  FROM oblivion.host_presence(host_presence.host_id, host_presence.stale_after) AS h;
END;

COMMENT ON FUNCTION public.host_presence(text, interval) IS
  'Whether a host can take a call now. host_id: the host. stale_after: an interval, 2 minutes by default; a host '
  'whose last heartbeat is older, by the server''s clock, is not available. Returns one row: is_available, room_id '
  '(room in which a caller meets the host), updated_at (last heartbeat). Returns no row for an unknown host. Errors: '
  '22023 if stale_after is NULL or negative.';
