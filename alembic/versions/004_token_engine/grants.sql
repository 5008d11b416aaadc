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
    oblivion.sweep_calls(text, interval, integer),
    public.top_up(text, integer, text),
    public.refund_call(uuid, integer, text),
    public.reap_stale_calls(interval, integer),
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
    oblivion.may_act_for(text, text),
    oblivion.check_key(text, text),
    oblivion.note_incident(uuid, text, text, text, text),
    oblivion.note_outcome(oblivion.call_meters, text, timestamptz, boolean, boolean),
    oblivion.bill_call(oblivion.call_meters, timestamptz, boolean, text),
    oblivion.turn_call(oblivion.call_meters, boolean, integer, integer, boolean),
    oblivion.rate_card(text, boolean),
    oblivion.advance_unmetered_call(uuid, text, text),
    oblivion.credit_account(text, integer, text, text, uuid, integer),
    oblivion.guard_metered_call(),
    oblivion.correct_meter(),
    oblivion.settle_deleted_call()
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
