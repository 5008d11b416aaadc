CREATE FUNCTION public.top_up(INOUT user_id text, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer)
RETURNS record
LANGUAGE sql
SET search_path TO ''
BEGIN ATOMIC
SELECT a.user_id,
     a.tokens,
     a.key,
     a.status,
     a.balance
    FROM oblivion.top_up(top_up.user_id, top_up.tokens, top_up.key) a(user_id, tokens, key, status, balance);
END;
