-- Reaps calls that went stale, or settles calls that have ended but could not be billed then. Calls whose billing failed
-- most recently come last.
-- Sessions that run it at once take different calls. A call that is being ticked at this moment is locked, and not
-- stale.
-- All calls are locked before the first is billed, and billed in the order of their users: two sessions that locked
-- accounts in different orders would deadlock.
CREATE OR REPLACE FUNCTION oblivion.sweep_calls(action text, not_seen_for interval, max_calls integer)
RETURNS TABLE (session_id uuid, status text, charged integer, shortfall integer, end_time timestamptz)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
SET lock_timeout = '1s'
AS $$
DECLARE
  call pg_catalog.record;
  held pg_catalog.text;
BEGIN
  IF not_seen_for IS NULL OR not_seen_for < interval '0' OR max_calls IS NULL OR max_calls < 0 THEN
    RAISE invalid_parameter_value USING
      MESSAGE = CASE action WHEN 'reap' THEN format('not_seen_for is %L, ', not_seen_for) ELSE '' END
        || format('max_calls is %L', max_calls),
      HINT = CASE action WHEN 'reap' THEN 'Give an interval and a number' ELSE 'Give a number' END || ' of zero or more';
  END IF;
  FOR call IN
    SELECT s.id, s.user_id
    FROM (
      SELECT c.id, m.user_id
      FROM oblivion.call_meters AS m
      JOIN public.call_sessions AS c ON c.id = m.session_id
      LEFT JOIN oblivion.billing_incidents AS i ON i.session_id = m.session_id AND i.resolved_at IS NULL
      WHERE NOT m.settled
        AND CASE sweep_calls.action
          WHEN 'reap' THEN c.end_time IS NULL AND m.seen_at <= clock_timestamp() - not_seen_for
          ELSE c.end_time IS NOT NULL
        END
      ORDER BY i.last_at NULLS FIRST
      LIMIT max_calls
      FOR NO KEY UPDATE OF c, m SKIP LOCKED
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
      FROM oblivion.advance_call(call.id, action, NULL, 'service_role') AS a;
    EXCEPTION
      WHEN OTHERS THEN
        session_id := call.id;
        status := 'unsettled';
        charged := 0;
        shortfall := 0;
        PERFORM oblivion.note_incident(call.id, call.user_id, action, SQLSTATE, SQLERRM);
        UPDATE oblivion.call_meters AS m SET has_incident = true WHERE m.session_id = call.id;
    END;
    SELECT c.end_time INTO end_time FROM public.call_sessions AS c WHERE c.id = call.id;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION oblivion.sweep_calls(text, interval, integer) IS
  'Implements public.reap_stale_calls() and public.settle_calls(), as the owner. action: reap or settle.';
