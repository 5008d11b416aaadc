DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON public.user_accounts, public.token_usage, public.token_rates FROM PUBLIC CASCADE;
  REVOKE ALL ON public.user_token_summary, public.daily_token_usage FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format(
      'REVOKE ALL ON public.user_accounts, public.token_usage, public.token_rates FROM %I CASCADE', api_role
    );
    EXECUTE format('REVOKE ALL ON public.user_token_summary, public.daily_token_usage FROM %I CASCADE', api_role);
    EXECUTE format('GRANT SELECT ON public.token_rates TO %I', api_role);
    IF oblivion.open_access() OR api_role = 'service_role' THEN
      EXECUTE format(
        'GRANT SELECT, INSERT, UPDATE, DELETE ON public.user_accounts, public.token_usage TO %I', api_role
      );
      EXECUTE format('GRANT SELECT ON public.user_token_summary, public.daily_token_usage TO %I', api_role);
    ELSIF api_role = 'authenticated' THEN
      GRANT SELECT, UPDATE (email) ON public.user_accounts TO authenticated;
      GRANT SELECT ON public.token_usage, public.user_token_summary, public.daily_token_usage TO authenticated;
    END IF;
    IF api_role = 'service_role' THEN
      GRANT INSERT, UPDATE, DELETE ON public.token_rates TO service_role;
    END IF;
  END LOOP;
END
$$;
