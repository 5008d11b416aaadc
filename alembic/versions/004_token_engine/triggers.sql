CREATE TRIGGER open_ledger AFTER INSERT ON public.user_accounts
  FOR EACH ROW EXECUTE FUNCTION oblivion.write_ledger();

CREATE TRIGGER write_ledger AFTER UPDATE ON public.user_accounts
  FOR EACH ROW EXECUTE FUNCTION oblivion.write_ledger();

CREATE TRIGGER close_ledger AFTER DELETE ON public.user_accounts
  FOR EACH ROW EXECUTE FUNCTION oblivion.write_ledger();

CREATE TRIGGER close_ledger_of_all BEFORE TRUNCATE ON public.user_accounts
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.close_ledger();

CREATE TRIGGER guard_metered_call BEFORE UPDATE ON public.call_sessions
  FOR EACH ROW WHEN (NOT has_table_privilege('oblivion.call_meters'::regclass, 'UPDATE'))
  EXECUTE FUNCTION oblivion.guard_metered_call();

CREATE TRIGGER correct_meter AFTER UPDATE OF start_time, end_time, user_id ON public.call_sessions
  FOR EACH ROW
  WHEN (pg_trigger_depth() > 0 OR NOT starts_with(coalesce(current_setting('oblivion.reason', true), ''), 'charge '))
  EXECUTE FUNCTION oblivion.correct_meter();

CREATE TRIGGER settle_deleted_call BEFORE DELETE ON public.call_sessions
  FOR EACH ROW EXECUTE FUNCTION oblivion.settle_deleted_call();
