CREATE OR REPLACE FUNCTION public.refund_call(INOUT session_id uuid, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.refund_call(session_id, tokens, key) AS a;
END;
