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

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON FUNCTION public.host_presence(text) FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION public.host_presence(text) FROM %I CASCADE', api_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION public.host_presence(text) TO %I', api_role);
  END LOOP;
END
$$;

COMMENT ON FUNCTION public.host_presence(text) IS
  'Whether a host can take a call now. host_id: the host. Returns one row: is_available, room_id (room in which a '
  'caller meets the host), updated_at (last heartbeat). Returns no row for an unknown host.';
