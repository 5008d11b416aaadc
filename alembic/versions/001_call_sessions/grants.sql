DO $$
DECLARE
  api_role name;
BEGIN
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format(
      'REVOKE ALL ON FUNCTION oblivion.open_access(), oblivion.is_service_role(), oblivion.current_user_id()'
        ' FROM %I CASCADE',
      api_role
    );
  END LOOP;
  GRANT EXECUTE ON FUNCTION oblivion.open_access(), oblivion.is_service_role(), oblivion.current_user_id()
    TO PUBLIC;
END
$$;

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON public.call_sessions, public.active_calls, public.daily_billing_summary FROM PUBLIC CASCADE;
  REVOKE ALL ON FUNCTION public.update_updated_at_column() FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format(
      'REVOKE ALL ON public.call_sessions, public.active_calls, public.daily_billing_summary FROM %I CASCADE', api_role
    );
    EXECUTE format('REVOKE ALL ON FUNCTION public.update_updated_at_column() FROM %I CASCADE', api_role);
    IF oblivion.open_access() OR api_role = 'service_role' THEN
      EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.call_sessions TO %I', api_role);
      EXECUTE format('GRANT SELECT ON public.active_calls, public.daily_billing_summary TO %I', api_role);
    ELSIF api_role = 'authenticated' THEN
      GRANT SELECT, INSERT (room_id, start_time, mode, used_turn, credit_cost, user_id)
        ON public.call_sessions TO authenticated;
      GRANT SELECT ON public.active_calls, public.daily_billing_summary TO authenticated;
    END IF;
  END LOOP;
END
$$;
