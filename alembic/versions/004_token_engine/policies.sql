-- If pages are metered, a signed-in user may sign in, and end own calls, as pages do.
ALTER POLICY call_sessions_update ON public.call_sessions
  USING (
    oblivion.open_access() OR oblivion.is_service_role()
    OR (user_id = (SELECT oblivion.current_user_id()) AND oblivion.page_billing() = 'metered')
  )
  WITH CHECK (
    oblivion.open_access() OR oblivion.is_service_role()
    OR (user_id = (SELECT oblivion.current_user_id()) AND oblivion.page_billing() = 'metered')
  );

ALTER POLICY user_accounts_insert ON public.user_accounts
  WITH CHECK (
    oblivion.open_access() OR oblivion.is_service_role()
    OR (user_id = (SELECT oblivion.current_user_id()) AND oblivion.page_billing() = 'metered')
  );
