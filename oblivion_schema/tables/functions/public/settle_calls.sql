CREATE OR REPLACE FUNCTION public.settle_calls(max_calls integer DEFAULT 1000)
RETURNS TABLE (session_id uuid, status text, charged integer, shortfall integer)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.settle_calls(max_calls) AS a;
END;
