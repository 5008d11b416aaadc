CREATE FUNCTION public.call_quote(user_id text, mode text, used_turn boolean DEFAULT false, OUT status text, OUT tokens_per_minute integer, OUT rate_from timestamp with time zone, OUT balance integer, OUT minutes_left integer)
RETURNS record
LANGUAGE sql
STABLE
SET search_path TO ''
BEGIN ATOMIC
SELECT a.status,
     a.tokens_per_minute,
     a.rate_from,
     a.balance,
     a.minutes_left
    FROM oblivion.call_quote(call_quote.user_id, call_quote.mode, call_quote.used_turn, ((CURRENT_USER)::text COLLATE "default")) a(status, tokens_per_minute, rate_from, balance, minutes_left);
END;
