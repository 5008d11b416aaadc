CREATE TRIGGER open_ledger AFTER INSERT ON public.user_accounts
  FOR EACH ROW EXECUTE FUNCTION oblivion.write_ledger();

CREATE TRIGGER write_ledger AFTER UPDATE ON public.user_accounts
  FOR EACH ROW EXECUTE FUNCTION oblivion.write_ledger();

CREATE TRIGGER close_ledger AFTER DELETE ON public.user_accounts
  FOR EACH ROW EXECUTE FUNCTION oblivion.write_ledger();

CREATE TRIGGER close_ledger_of_all BEFORE TRUNCATE ON public.user_accounts
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.close_ledger();

CREATE TRIGGER guard_metered_call BEFORE UPDATE ON public.call_sessions
  FOR EACH ROW WHEN (NOT has_table_privilege('oblivion.call_meters'::regclass, 'UPDATE WITH GRANT OPTION'))
  EXECUTE FUNCTION oblivion.guard_metered_call();

CREATE TRIGGER correct_meter AFTER UPDATE OF start_time, end_time, user_id ON public.call_sessions
  FOR EACH ROW
  WHEN (
    has_table_privilege('oblivion.call_meters'::regclass, 'UPDATE WITH GRANT OPTION')
    AND (pg_trigger_depth() > 0 OR NOT starts_with(coalesce(current_setting('oblivion.reason', true), ''), 'charge '))
  )
  EXECUTE FUNCTION oblivion.correct_meter();

CREATE TRIGGER bill_page_call AFTER UPDATE ON public.call_sessions
  FOR EACH ROW WHEN (NOT has_table_privilege('oblivion.call_meters'::regclass, 'UPDATE WITH GRANT OPTION'))
  EXECUTE FUNCTION oblivion.bill_page_call();

CREATE TRIGGER meter_page_call AFTER INSERT ON public.call_sessions
  FOR EACH ROW WHEN (NOT has_table_privilege('oblivion.call_meters'::regclass, 'UPDATE WITH GRANT OPTION'))
  EXECUTE FUNCTION oblivion.meter_page_call();

CREATE TRIGGER guard_account BEFORE INSERT OR DELETE ON public.user_accounts
  FOR EACH ROW WHEN (NOT has_table_privilege('oblivion.call_meters'::regclass, 'UPDATE WITH GRANT OPTION'))
  EXECUTE FUNCTION oblivion.guard_account();

CREATE OR REPLACE TRIGGER update_user_accounts_updated_at BEFORE UPDATE ON public.user_accounts
  FOR EACH ROW EXECUTE FUNCTION oblivion.update_account();

CREATE TRIGGER guard_usage BEFORE INSERT OR UPDATE OR DELETE ON public.token_usage
  FOR EACH ROW WHEN (NOT has_table_privilege('oblivion.call_meters'::regclass, 'UPDATE WITH GRANT OPTION'))
  EXECUTE FUNCTION oblivion.guard_usage();

CREATE TRIGGER settle_deleted_call BEFORE DELETE ON public.call_sessions
  FOR EACH ROW EXECUTE FUNCTION oblivion.settle_deleted_call();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON public.call_sessions
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON public.user_presence
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON public.user_accounts
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON public.token_usage
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON public.token_rates
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON oblivion.adoption_log
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON public.token_ledger
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON oblivion.call_meters
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON oblivion.call_segments
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON oblivion.billing_incidents
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON oblivion.backfills
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();
