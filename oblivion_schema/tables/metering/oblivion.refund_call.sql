-- Locks the meter, then the account, as billing does. The meter counts the tokens that were refunded.
CREATE OR REPLACE FUNCTION oblivion.refund_call(
  INOUT session_id uuid, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  call pg_catalog.record;
BEGIN
  PERFORM oblivion.refuse_pages();
  PERFORM FROM oblivion.call_meters AS m WHERE m.session_id = refund_call.session_id FOR NO KEY UPDATE;
  SELECT m.user_id, m.cost - m.refunded - m.shortfall - coalesce((
    SELECT sum(s.shortfall) FROM oblivion.call_segments AS s WHERE s.session_id = m.session_id
  ), 0)::integer AS refundable
  INTO call
  FROM oblivion.call_meters AS m
  WHERE m.session_id = refund_call.session_id;
  IF NOT FOUND THEN
    status := 'unknown';
    RETURN;
  END IF;
  SELECT c.status, c.balance
  INTO status, balance
  FROM oblivion.credit_account(call.user_id, tokens, key, 'refund', session_id, call.refundable) AS c;
  UPDATE oblivion.call_meters AS m
  SET refunded = m.refunded + refund_call.tokens
  WHERE m.session_id = refund_call.session_id AND refund_call.status = 'ok';
END
$$;

COMMENT ON FUNCTION oblivion.refund_call(uuid, integer, text) IS 'Implements public.refund_call(), as the owner.';
