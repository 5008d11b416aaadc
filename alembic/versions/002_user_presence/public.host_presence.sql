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
  'Whether a host takes calls, where, and when the host was last heard of; no row for one that is not known.';
