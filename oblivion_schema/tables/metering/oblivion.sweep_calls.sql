-- Burns tokens of calls of pages that had a heartbeat, reaps calls that went stale, or settles calls that have ended but
-- could not be billed then. Calls whose billing failed most recently come last.
-- Sessions that run it at once take different calls. A call that is being ticked at this moment is locked, and not
-- stale.
-- All calls are locked before the first is billed, and billed in the order of their users: two sessions that locked
-- accounts in different orders would deadlock.
CREATE OR REPLACE FUNCTION oblivion.sweep_calls(
  action text, max_calls integer, not_seen_for interval DEFAULT '0', pages_not_seen_for interval DEFAULT '0'
)
RETURNS TABLE (session_id uuid, status text, charged integer, shortfall integer, end_time timestamptz)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
SET lock_timeout = '1s'
AS $$
DECLARE
  call pg_catalog.record;
  held pg_catalog.text;
  unsettled integer := 0;
BEGIN
  PERFORM oblivion.refuse_pages();
  IF (not_seen_for >= interval '0' AND pages_not_seen_for >= interval '0' AND max_calls > 0) IS NOT TRUE THEN
    RAISE invalid_parameter_value USING
      MESSAGE = CASE action
        WHEN 'reap' THEN format('not_seen_for is %L, pages_not_seen_for %L, ', not_seen_for, pages_not_seen_for)
        ELSE ''
      END || format('max_calls is %L', max_calls),
      HINT = CASE action WHEN 'reap' THEN 'Give intervals of zero or more, and a number' ELSE 'Give a number' END
        || ' above zero';
  END IF;
  FOR call IN
    SELECT s.id, s.user_id, s.heartbeat
    FROM (
      SELECT c.id, m.user_id, p.heartbeat
      FROM oblivion.call_meters AS m
      JOIN public.call_sessions AS c ON c.id = m.session_id
      LEFT JOIN oblivion.billing_incidents AS i ON i.session_id = m.session_id AND i.resolved_at IS NULL
      LEFT JOIN oblivion.page_calls AS p ON p.session_id = m.session_id AND sweep_calls.action <> 'settle'
      WHERE NOT m.settled
        AND CASE sweep_calls.action
          WHEN 'burn' THEN p.heartbeat > m.seen_at AND oblivion.page_billing() = 'metered'
          WHEN 'reap' THEN c.end_time IS NULL AND greatest(m.seen_at, p.heartbeat) <=
            clock_timestamp() - CASE WHEN m.by_page THEN pages_not_seen_for ELSE not_seen_for END
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
      UPDATE oblivion.call_meters AS m
      SET seen_at = call.heartbeat
      WHERE m.session_id = call.id AND call.heartbeat > m.seen_at;
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
    unsettled := unsettled + (status = 'unsettled')::integer;
    SELECT c.end_time INTO end_time FROM public.call_sessions AS c WHERE c.id = call.id;
    RETURN NEXT;
  END LOOP;
  IF unsettled > 0 THEN
    -- A scheduler such as pg_cron reads no rows: the server's log has this.
    RAISE WARNING '% calls could not be billed', unsettled
      USING HINT = 'oblivion.billing_incidents has the errors; settle_calls() tries again';
  END IF;
END
$$;

COMMENT ON FUNCTION oblivion.sweep_calls(text, integer, interval, interval) IS
  'Implements public.burn_calls(), public.reap_stale_calls() and public.settle_calls(), as the owner. action: burn, reap '
  'or settle.';
