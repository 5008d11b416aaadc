CREATE FUNCTION public.start_call(user_id text, room_id text, mode text, used_turn boolean DEFAULT false, client_key text DEFAULT NULL::text, OUT session_id uuid, OUT status text, OUT charged integer, OUT shortfall integer, OUT balance integer, OUT minutes_billed integer, OUT minutes_left integer, OUT credit_cost numeric)
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
    FROM oblivion.start_call(start_call.user_id, start_call.room_id, start_call.mode, start_call.used_turn, start_call.client_key, ((CURRENT_USER)::text COLLATE "default")) a(session_id, status, charged, shortfall, balance, minutes_billed, minutes_left, credit_cost);
END;
