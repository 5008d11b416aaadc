CREATE FUNCTION public.refund_call(
  INOUT session_id uuid, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer
)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.refund_call(session_id, tokens, key) AS a;
END;

COMMENT ON FUNCTION public.refund_call(uuid, integer, text) IS
  'Gives tokens of a metered call back, once for each key, and never more than were charged. session_id: the call. '
  'tokens: a number above zero. key: an idempotency key of 1 to 200 characters. Returns one row: session_id, tokens '
  'and key as given; status: ok, known (refunded before; nothing was added now), or unknown (no such metered call); '
  'balance: tokens after the refund. Errors: 22023 tokens is not above zero, or more than is left of what was '
  'charged, or the key is missing, empty or too long; 22003 the balance would exceed an integer; 23503 no such '
  'account; 23505 the key is known from another credit.';
