CREATE OR REPLACE FUNCTION public.end_call(
  INOUT session_id uuid,
  OUT status text,
  OUT charged integer,
  OUT shortfall integer,
  OUT balance integer,
  OUT minutes_billed integer,
  OUT minutes_left integer,
  OUT credit_cost numeric
)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.advance_call(session_id, 'end', NULL, current_user::text COLLATE "default") AS a;
END;
