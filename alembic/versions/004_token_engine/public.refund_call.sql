CREATE FUNCTION public.refund_call(INOUT session_id uuid, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer)
RETURNS record
LANGUAGE sql
SET search_path TO ''
BEGIN ATOMIC
SELECT a.session_id,
     a.tokens,
     a.key,
     a.status,
     a.balance
    FROM oblivion.refund_call(refund_call.session_id, refund_call.tokens, refund_call.key) a(session_id, tokens, key, status, balance);
END;
