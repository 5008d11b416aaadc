CREATE FUNCTION public.tick_call(INOUT session_id uuid, OUT status text, OUT charged integer, OUT shortfall integer, OUT balance integer, OUT minutes_billed integer, OUT minutes_left integer, OUT credit_cost numeric)
RETURNS record
LANGUAGE sql
SET search_path TO ''
BEGIN ATOMIC
SELECT a.session_id,
     a.status,
     a.charged,
     a.shortfall,
     a.balance,
     a.minutes_billed,
     a.minutes_left,
     a.credit_cost
    FROM oblivion.advance_call(tick_call.session_id, 'tick'::text, NULL::boolean, ((CURRENT_USER)::text COLLATE "default")) a(session_id, status, charged, shortfall, balance, minutes_billed, minutes_left, credit_cost);
END;
