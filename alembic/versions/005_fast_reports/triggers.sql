CREATE TRIGGER note_insert AFTER INSERT ON public.call_sessions
  REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.note_calls();

CREATE TRIGGER note_update AFTER UPDATE ON public.call_sessions
  REFERENCING OLD TABLE AS removed NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.note_calls();

CREATE TRIGGER note_delete AFTER DELETE ON public.call_sessions
  REFERENCING OLD TABLE AS removed
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.note_calls();

CREATE TRIGGER clear_rollups AFTER TRUNCATE ON public.call_sessions
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.clear_rollups();

CREATE TRIGGER note_insert AFTER INSERT ON public.token_usage
  REFERENCING NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.note_usage();

CREATE TRIGGER note_update AFTER UPDATE ON public.token_usage
  REFERENCING OLD TABLE AS removed NEW TABLE AS added
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.note_usage();

CREATE TRIGGER note_delete AFTER DELETE ON public.token_usage
  REFERENCING OLD TABLE AS removed
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.note_usage();

CREATE TRIGGER clear_rollups AFTER TRUNCATE ON public.token_usage
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.clear_rollups();

CREATE OR REPLACE TRIGGER update_user_presence_updated_at_trigger BEFORE INSERT OR UPDATE ON public.user_presence
  FOR EACH ROW EXECUTE FUNCTION public.update_user_presence_updated_at();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON oblivion.daily_usage
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON oblivion.user_usage
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON oblivion.usage_deltas
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON oblivion.daily_calls
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON oblivion.call_deltas
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();
