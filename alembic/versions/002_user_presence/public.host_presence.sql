CREATE OR REPLACE FUNCTION public.host_presence(host_id text)
RETURNS TABLE (is_available boolean, room_id text, updated_at timestamptz)
LANGUAGE sql
STABLE
SET search_path = ''
BEGIN ATOMIC
  SELECT h.is_available, h.room_id, h.updated_at
  FROM oblivion.host_presence(host_presence.host_id) AS h;
END;

COMMENT ON FUNCTION public.host_presence(text) IS
  'Whether a host can take a call now. host_id: the host. Returns one row: is_available, room_id (room in which a '
  'caller meets the host), updated_at (last heartbeat). Returns no row for an unknown host.';
