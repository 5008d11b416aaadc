CREATE TRIGGER open_ledger AFTER INSERT ON public.user_accounts
  FOR EACH ROW EXECUTE FUNCTION oblivion.write_ledger();

CREATE TRIGGER write_ledger AFTER UPDATE ON public.user_accounts
  FOR EACH ROW EXECUTE FUNCTION oblivion.write_ledger();

CREATE TRIGGER close_ledger AFTER DELETE ON public.user_accounts
  FOR EACH ROW EXECUTE FUNCTION oblivion.write_ledger();

CREATE TRIGGER close_ledger_of_all BEFORE TRUNCATE ON public.user_accounts
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.close_ledger();

CREATE TRIGGER guard_metered_call BEFORE UPDATE ON public.call_sessions
  FOR EACH ROW WHEN (current_user::text = ANY ('{anon,authenticated,service_role}'::text[]))
  EXECUTE FUNCTION oblivion.guard_metered_call();

CREATE TRIGGER settle_deleted_call BEFORE DELETE ON public.call_sessions
  FOR EACH ROW EXECUTE FUNCTION oblivion.settle_deleted_call();

CREATE TRIGGER guard_metered_usage BEFORE UPDATE OR DELETE ON public.token_usage
  FOR EACH ROW WHEN (current_user::text = ANY ('{anon,authenticated,service_role}'::text[]))
  EXECUTE FUNCTION oblivion.guard_metered_usage();
