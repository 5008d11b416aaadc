CREATE FUNCTION public.reap_stale_calls(not_seen_for interval DEFAULT '00:05:00'::interval, max_calls integer DEFAULT 1000)
RETURNS TABLE(session_id uuid, status text, charged integer, shortfall integer, end_time timestamp with time zone)
LANGUAGE sql
SET search_path TO ''
BEGIN ATOMIC
SELECT a.session_id,
     a.status,
     a.charged,
     a.shortfall,
     a.end_time
    FROM oblivion.reap_stale_calls(reap_stale_calls.not_seen_for, reap_stale_calls.max_calls) a(session_id, status, charged, shortfall, end_time);
END;
