ALTER TABLE public.user_accounts ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.token_usage ENABLE ROW LEVEL SECURITY;

ALTER TABLE public.token_rates ENABLE ROW LEVEL SECURITY;

DROP POLICY IF EXISTS user_accounts_select ON public.user_accounts;

CREATE POLICY user_accounts_select ON public.user_accounts FOR SELECT TO public
  USING (oblivion.open_access() OR oblivion.is_service_role() OR user_id = (SELECT oblivion.current_user_id()));

DROP POLICY IF EXISTS user_accounts_insert ON public.user_accounts;

CREATE POLICY user_accounts_insert ON public.user_accounts FOR INSERT TO public
  WITH CHECK (oblivion.open_access() OR oblivion.is_service_role());

DROP POLICY IF EXISTS user_accounts_update ON public.user_accounts;

CREATE POLICY user_accounts_update ON public.user_accounts FOR UPDATE TO public
  USING (oblivion.open_access() OR oblivion.is_service_role() OR user_id = (SELECT oblivion.current_user_id()))
  WITH CHECK (oblivion.open_access() OR oblivion.is_service_role() OR user_id = (SELECT oblivion.current_user_id()));

DROP POLICY IF EXISTS user_accounts_delete ON public.user_accounts;

CREATE POLICY user_accounts_delete ON public.user_accounts FOR DELETE TO public
  USING (oblivion.open_access() OR oblivion.is_service_role());

DROP POLICY IF EXISTS token_usage_select ON public.token_usage;

CREATE POLICY token_usage_select ON public.token_usage FOR SELECT TO public
  USING (oblivion.open_access() OR oblivion.is_service_role() OR user_id = (SELECT oblivion.current_user_id()));

DROP POLICY IF EXISTS token_usage_insert ON public.token_usage;

CREATE POLICY token_usage_insert ON public.token_usage FOR INSERT TO public
  WITH CHECK (oblivion.open_access() OR oblivion.is_service_role());

DROP POLICY IF EXISTS token_usage_update ON public.token_usage;

CREATE POLICY token_usage_update ON public.token_usage FOR UPDATE TO public
  USING (oblivion.open_access() OR oblivion.is_service_role())
  WITH CHECK (oblivion.open_access() OR oblivion.is_service_role());

DROP POLICY IF EXISTS token_usage_delete ON public.token_usage;

CREATE POLICY token_usage_delete ON public.token_usage FOR DELETE TO public
  USING (oblivion.open_access() OR oblivion.is_service_role());

DROP POLICY IF EXISTS token_rates_select ON public.token_rates;

CREATE POLICY token_rates_select ON public.token_rates FOR SELECT TO public USING (true);

DROP POLICY IF EXISTS token_rates_insert ON public.token_rates;

CREATE POLICY token_rates_insert ON public.token_rates FOR INSERT TO public
  WITH CHECK (oblivion.is_service_role());

DROP POLICY IF EXISTS token_rates_update ON public.token_rates;

CREATE POLICY token_rates_update ON public.token_rates FOR UPDATE TO public
  USING (oblivion.is_service_role())
  WITH CHECK (oblivion.is_service_role());

DROP POLICY IF EXISTS token_rates_delete ON public.token_rates;

CREATE POLICY token_rates_delete ON public.token_rates FOR DELETE TO public
  USING (oblivion.is_service_role());
