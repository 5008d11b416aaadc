CREATE FUNCTION public.explain_call(session_id uuid)
RETURNS TABLE(segment integer, mode text, used_turn boolean, first_minute integer, minutes integer, tokens_per_minute integer, rate_from timestamp with time zone, due integer, charged integer, shortfall integer)
LANGUAGE sql
STABLE
SET search_path TO ''
BEGIN ATOMIC
SELECT a.segment,
     a.mode,
     a.used_turn,
     a.first_minute,
     a.minutes,
     a.tokens_per_minute,
     a.rate_from,
     a.due,
     a.charged,
     a.shortfall
    FROM oblivion.explain_call(explain_call.session_id, ((CURRENT_USER)::text COLLATE "default")) a(segment, mode, used_turn, first_minute, minutes, tokens_per_minute, rate_from, due, charged, shortfall);
END;
