ALTER POLICY call_sessions_update ON public.call_sessions
  USING (oblivion.open_access() OR oblivion.is_service_role())
  WITH CHECK (oblivion.open_access() OR oblivion.is_service_role());

ALTER POLICY user_accounts_insert ON public.user_accounts
  WITH CHECK (oblivion.open_access() OR oblivion.is_service_role());

ALTER POLICY user_accounts_update ON public.user_accounts
  WITH CHECK (oblivion.open_access() OR oblivion.is_service_role() OR user_id = (SELECT oblivion.current_user_id()));

DROP FUNCTION oblivion.keeps_account(text, integer, text, timestamptz);

DROP POLICY adoption_log_all ON oblivion.adoption_log;

ALTER TABLE oblivion.adoption_log DISABLE ROW LEVEL SECURITY;

DO $$
BEGIN
  IF to_regrole('authenticated') IS NOT NULL AND NOT oblivion.open_access() THEN
    REVOKE UPDATE (end_time, used_turn, credit_cost) ON public.call_sessions FROM authenticated;
    REVOKE INSERT (user_id, tokens_remaining, email), UPDATE (user_id, tokens_remaining)
      ON public.user_accounts FROM authenticated;
    REVOKE INSERT (user_id, session_id, tokens_used, mode, used_turn, duration_seconds, "timestamp")
      ON public.token_usage FROM authenticated;
  END IF;
END
$$;

CREATE OR REPLACE TRIGGER update_user_accounts_updated_at BEFORE UPDATE ON public.user_accounts
  FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column();

DROP TRIGGER guard_account ON public.user_accounts;

DROP TRIGGER guard_usage ON public.token_usage;

DROP TRIGGER bill_page_call ON public.call_sessions;

DROP TRIGGER meter_page_call ON public.call_sessions;

DROP FUNCTION public.burn_calls(integer);

DROP FUNCTION oblivion.update_account();

DROP FUNCTION oblivion.guard_account();

DROP FUNCTION oblivion.guard_usage();

DROP FUNCTION oblivion.call_id(text);

DROP FUNCTION oblivion.bill_page_call();

DROP FUNCTION oblivion.meter_page_call();

DROP FUNCTION oblivion.unmeter_call(uuid);

DROP FUNCTION oblivion.meter_call(uuid, text, text, timestamptz);

DROP VIEW oblivion.page_calls;

DROP FUNCTION public.page_billing();

DROP FUNCTION oblivion.page_billing();
