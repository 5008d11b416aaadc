CREATE FUNCTION public.settle_calls(max_calls integer DEFAULT 1000)
RETURNS TABLE(session_id uuid, status text, charged integer, shortfall integer)
LANGUAGE sql
SET search_path TO ''
BEGIN ATOMIC
SELECT a.session_id,
     a.status,
     a.charged,
     a.shortfall
    FROM oblivion.settle_calls(settle_calls.max_calls) a(session_id, status, charged, shortfall);
END;
