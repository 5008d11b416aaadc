CREATE OR REPLACE FUNCTION oblivion.host_presence(host_id text)
RETURNS TABLE (is_available boolean, room_id text, updated_at timestamptz)
LANGUAGE sql
STABLE SECURITY DEFINER
SET search_path = ''
BEGIN ATOMIC
  SELECT p.is_available, p.room_id, p.updated_at
  FROM public.user_presence AS p
  WHERE p.host_id = host_presence.host_id;
END;

COMMENT ON FUNCTION oblivion.host_presence(text) IS 'Implements public.host_presence(), as the owner.';
