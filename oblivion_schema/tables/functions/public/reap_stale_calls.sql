CREATE OR REPLACE FUNCTION public.reap_stale_calls(not_seen_for interval DEFAULT '5 minutes', max_calls integer DEFAULT 1000)
RETURNS TABLE (session_id uuid, status text, charged integer, shortfall integer, end_time timestamptz)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.reap_stale_calls(not_seen_for, max_calls) AS a;
END;
