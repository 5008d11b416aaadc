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

-- A user who may write more columns than was meant still changes neither balance nor tier.
ALTER POLICY user_accounts_update ON public.user_accounts
  WITH CHECK (
    oblivion.open_access() OR oblivion.is_service_role()
    OR (user_id = (SELECT oblivion.current_user_id()) AND oblivion.keeps_account(
      user_id, CASE WHEN oblivion.page_billing() = 'trusted' THEN tokens_remaining END, subscription_tier, created_at
    ))
  );

-- Pages reach no row of a private table, whatever was granted to them.
ALTER TABLE oblivion.adoption_log ENABLE ROW LEVEL SECURITY;

CREATE POLICY adoption_log_all ON oblivion.adoption_log FOR ALL TO public USING (current_user NOT IN ('anon', 'authenticated'));

ALTER TABLE oblivion.call_meters ENABLE ROW LEVEL SECURITY;

CREATE POLICY call_meters_all ON oblivion.call_meters FOR ALL TO public USING (current_user NOT IN ('anon', 'authenticated'));

ALTER TABLE oblivion.call_segments ENABLE ROW LEVEL SECURITY;

CREATE POLICY call_segments_all ON oblivion.call_segments FOR ALL TO public USING (current_user NOT IN ('anon', 'authenticated'));

ALTER TABLE oblivion.billing_incidents ENABLE ROW LEVEL SECURITY;

CREATE POLICY billing_incidents_all ON oblivion.billing_incidents FOR ALL TO public USING (current_user NOT IN ('anon', 'authenticated'));
