-- All API roles may execute these.
DO $$
DECLARE
  api_role name;
  functions CONSTANT text := '
    oblivion.advance_call(uuid, text, boolean, text),
    oblivion.tick_call(uuid, text),
    oblivion.end_call(uuid, text),
    oblivion.call_quote(text, text, boolean, text),
    oblivion.start_call(text, text, text, boolean, text, text),
    oblivion.explain_call(uuid, text),
    public.page_billing(),
    public.call_quote(text, text, boolean),
    public.start_call(text, text, text, boolean, text),
    public.tick_call(uuid),
    public.set_call_turn(uuid, boolean),
    public.end_call(uuid),
    public.explain_call(uuid)
  ';
BEGIN
  EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC CASCADE', functions);
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I CASCADE', functions, api_role);
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', functions, api_role);
  END LOOP;
END
$$;

-- Only service_role and the owner may execute these.
DO $$
DECLARE
  api_role name;
  functions CONSTANT text := '
    oblivion.top_up(text, integer, text),
    oblivion.refund_call(uuid, integer, text),
    oblivion.sweep_calls(text, integer, interval, interval),
    public.top_up(text, integer, text),
    public.refund_call(uuid, integer, text),
    public.burn_calls(integer),
    public.reap_stale_calls(interval, integer, interval),
    public.settle_calls(integer)
  ';
BEGIN
  EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC CASCADE', functions);
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I CASCADE', functions, api_role);
    IF api_role = 'service_role' THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', functions, api_role);
    END IF;
  END LOOP;
END
$$;

-- Only the owner may execute these.
DO $$
DECLARE
  api_role name;
  functions CONSTANT text := '
    oblivion.write_ledger(),
    oblivion.close_ledger(),
    oblivion.trim_ledger(timestamptz),
    oblivion.fold_charges(timestamptz),
    oblivion.wrong_ledgers(),
    oblivion.rebuild_ledger(),
    oblivion.restart_identities(),
    oblivion.may_act_for(text, text),
    oblivion.check_key(text, text),
    oblivion.note_incident(uuid, text, text, text, text),
    oblivion.note_outcome(oblivion.call_meters, text, timestamptz, boolean, boolean),
    oblivion.final_meter(oblivion.call_meters, boolean),
    oblivion.page_lag(oblivion.call_meters, timestamptz),
    oblivion.is_fresh(oblivion.call_meters),
    oblivion.last_moment(oblivion.call_meters),
    oblivion.bill_call(oblivion.call_meters, timestamptz, boolean, text),
    oblivion.turn_call(oblivion.call_meters, boolean, integer, integer, boolean),
    oblivion.rate_card(text, boolean),
    oblivion.advance_unmetered_call(uuid, text, text),
    oblivion.credit_account(text, integer, text, text, uuid, integer),
    oblivion.guard_metered_call(),
    oblivion.correct_meter(),
    oblivion.settle_deleted_call(),
    oblivion.is_page(),
    oblivion.is_intruder(),
    oblivion.refuse_pages(),
    oblivion.bar_truncate(),
    oblivion.meter_call(uuid, text, text, timestamptz),
    oblivion.unmeter_call(uuid),
    oblivion.meter_page_call(),
    oblivion.bill_page_call(),
    oblivion.update_account(),
    oblivion.guard_account(),
    oblivion.call_id(text),
    oblivion.guard_usage(),
    oblivion.allow_sign_up(integer),
    oblivion.make_account(text, text, boolean),
    oblivion.open_account_of_user()
  ';
BEGIN
  EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC CASCADE', functions);
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I CASCADE', functions, api_role);
  END LOOP;
END
$$;

-- Policies ask for them, so every role that may query a table needs EXECUTE, an operator's own role too.
DO $$
DECLARE
  api_role name;
  functions CONSTANT text := '
    oblivion.page_billing(),
    oblivion.keeps_account(text, integer, text, timestamptz)
  ';
BEGIN
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I CASCADE', functions, api_role);
  END LOOP;
  EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO PUBLIC', functions);
END
$$;

-- In the authenticated mode, if pages are metered: what pages write without effect.
DO $$
BEGIN
  IF to_regrole('authenticated') IS NOT NULL AND NOT oblivion.open_access() AND oblivion.page_billing() = 'metered' THEN
    GRANT UPDATE (end_time, used_turn, credit_cost) ON public.call_sessions TO authenticated;
    GRANT INSERT (user_id, tokens_remaining, email), UPDATE (user_id, tokens_remaining)
      ON public.user_accounts TO authenticated;
    GRANT INSERT (user_id, session_id, tokens_used, mode, used_turn, duration_seconds, "timestamp")
      ON public.token_usage TO authenticated;
  END IF;
END
$$;

-- Only signed-in users may execute these.
DO $$
DECLARE
  api_role name;
  functions CONSTANT text := 'oblivion.open_account(), public.open_account()';
BEGIN
  EXECUTE format('REVOKE ALL ON FUNCTION %s FROM PUBLIC CASCADE', functions);
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I CASCADE', functions, api_role);
    IF api_role = 'authenticated' THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', functions, api_role);
    END IF;
  END LOOP;
END
$$;
