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

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON FUNCTION oblivion.host_presence(text) FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION oblivion.host_presence(text) FROM %I CASCADE', api_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION oblivion.host_presence(text) TO %I', api_role);
  END LOOP;
END
$$;

COMMENT ON FUNCTION oblivion.host_presence(text) IS 'Implements public.host_presence(), as the owner.';
