CREATE FUNCTION public.reap_stale_calls(not_seen_for interval DEFAULT '5 minutes', max_calls integer DEFAULT 1000)
RETURNS TABLE (session_id uuid, status text, charged integer, shortfall integer, end_time timestamptz)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.reap_stale_calls(not_seen_for, max_calls) AS a;
END;

COMMENT ON FUNCTION public.reap_stale_calls(interval, integer) IS
  'Ends metered calls that were not seen for that time, at most so many: each is billed to when it was last seen. A '
  'late tick revives one. Returns a row for each: status, charged and shortfall (tokens), end_time. Safe to run by '
  'several at once. Errors: 22023 a negative argument.';
