CREATE FUNCTION public.refund_call(INOUT session_id uuid, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.refund_call(session_id, tokens, key) AS a;
END;

COMMENT ON FUNCTION public.refund_call(uuid, integer, text) IS
  'Gives tokens of a metered call back, once for each key of 1 to 200 characters, and never more than were charged '
  '(22023). An unknown call is a status. Returns a row: status (ok; known: the answer is the first one''s) and '
  'balance (tokens after it). Errors: 22023 no tokens above zero, or no key; 22003 a balance beyond an integer; 23503 '
  'no account; 23505 a key that is known with other content.';
