CREATE FUNCTION public.host_presence(host_id text)
RETURNS TABLE(is_available boolean, room_id text, updated_at timestamp with time zone)
LANGUAGE sql
STABLE
SET search_path TO ''
BEGIN ATOMIC
SELECT h.is_available,
     h.room_id,
     h.updated_at
    FROM oblivion.host_presence(host_presence.host_id) h(is_available, room_id, updated_at);
END;
