-- Calls that have ended, but could not be billed then; those that failed last come last. They are
-- locked and billed in the order that reap_stale_calls() has.
CREATE OR REPLACE FUNCTION oblivion.settle_calls(max_calls integer)
RETURNS TABLE (session_id uuid, status text, charged integer, shortfall integer)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  call pg_catalog.record;
BEGIN
  IF max_calls IS NULL OR max_calls < 0 THEN
    RAISE invalid_parameter_value
      USING MESSAGE = format('At most %s calls', max_calls), HINT = 'Give a number of zero or more';
  END IF;
  FOR call IN
    SELECT s.id
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
    SELECT a.session_id, a.status, a.charged, a.shortfall
    INTO session_id, status, charged, shortfall
    FROM oblivion.advance_call(call.id, 'settle', NULL, 'service_role') AS a;
    RETURN NEXT;
  END LOOP;
END
$$;
