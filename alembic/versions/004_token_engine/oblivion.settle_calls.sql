-- Takes calls that have ended but could not be billed then. Calls whose billing failed most recently come last. It
-- locks and bills them in the same order as reap_stale_calls().
CREATE FUNCTION oblivion.settle_calls(max_calls integer)
RETURNS TABLE (session_id uuid, status text, charged integer, shortfall integer)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
SET lock_timeout = '1s'
AS $$
DECLARE
  call pg_catalog.record;
  held pg_catalog.text;
BEGIN
  IF max_calls IS NULL OR max_calls < 0 THEN
    RAISE invalid_parameter_value
      USING MESSAGE = format('max_calls is %L', max_calls), HINT = 'Give a number of zero or more';
  END IF;
  FOR call IN
    SELECT s.id, s.user_id
    FROM (
      SELECT c.id, c.user_id
      FROM oblivion.call_meters AS m
      JOIN public.call_sessions AS c ON c.id = m.session_id
      LEFT JOIN oblivion.billing_incidents AS i ON i.session_id = m.session_id AND i.resolved_at IS NULL
      WHERE NOT m.settled AND c.end_time IS NOT NULL
      ORDER BY i.last_at NULLS FIRST
      LIMIT max_calls
      FOR NO KEY UPDATE OF c SKIP LOCKED
    ) AS s
    ORDER BY s.user_id
  LOOP
    CONTINUE WHEN call.user_id = held;
    BEGIN
      PERFORM FROM public.user_accounts AS a WHERE a.user_id = call.user_id FOR NO KEY UPDATE;
    EXCEPTION
      WHEN lock_not_available OR deadlock_detected THEN
        -- Another session holds this account for long: skip its calls until the next run.
        held := call.user_id;
        CONTINUE;
    END;
    BEGIN
      SELECT a.session_id, a.status, a.charged, a.shortfall
      INTO session_id, status, charged, shortfall
      FROM oblivion.advance_call(call.id, 'settle', NULL, 'service_role') AS a;
    EXCEPTION
      WHEN OTHERS THEN
        session_id := call.id;
        status := 'unsettled';
        charged := 0;
        shortfall := 0;
        PERFORM oblivion.note_incident(call.id, call.user_id, 'settle', SQLSTATE, SQLERRM);
        UPDATE oblivion.call_meters AS m SET has_incident = true WHERE m.session_id = call.id;
    END;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION oblivion.settle_calls(integer) IS 'Implements public.settle_calls(), as the owner.';
