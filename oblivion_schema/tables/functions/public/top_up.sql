CREATE OR REPLACE FUNCTION public.top_up(INOUT user_id text, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.top_up(user_id, tokens, key) AS a;
END;
