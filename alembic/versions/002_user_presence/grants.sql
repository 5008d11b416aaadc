DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON public.user_presence FROM PUBLIC CASCADE;
  REVOKE ALL ON FUNCTION public.update_user_presence_updated_at() FROM PUBLIC CASCADE;
  REVOKE ALL ON FUNCTION oblivion.host_presence(text), public.host_presence(text) FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON public.user_presence FROM %I CASCADE', api_role);
    EXECUTE format('REVOKE ALL ON FUNCTION public.update_user_presence_updated_at() FROM %I CASCADE', api_role);
    EXECUTE format(
      'GRANT EXECUTE ON FUNCTION oblivion.host_presence(text), public.host_presence(text) TO %I', api_role
    );
    IF oblivion.open_access() OR api_role <> 'anon' THEN
      EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.user_presence TO %I', api_role);
    END IF;
  END LOOP;
END
$$;
