-- What PostgREST calls. Its body was bound to the function in schema oblivion when it was made, so that whoever may call
-- this one needs no right to that schema.
CREATE OR REPLACE FUNCTION public.host_presence(host_id text)
RETURNS TABLE (is_available boolean, room_id text, updated_at timestamptz)
LANGUAGE sql
STABLE
SET search_path = ''
BEGIN ATOMIC
  SELECT h.is_available, h.room_id, h.updated_at
  FROM oblivion.host_presence(host_presence.host_id) AS h;
END;
