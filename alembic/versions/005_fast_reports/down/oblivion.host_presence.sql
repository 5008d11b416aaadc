CREATE FUNCTION oblivion.host_presence(host_id text)
RETURNS TABLE(is_available boolean, room_id text, updated_at timestamp with time zone)
LANGUAGE sql
STABLE SECURITY DEFINER
SET search_path TO ''
BEGIN ATOMIC
SELECT p.is_available,
     p.room_id,
     p.updated_at
    FROM public.user_presence p
   WHERE (p.host_id = host_presence.host_id);
END;
