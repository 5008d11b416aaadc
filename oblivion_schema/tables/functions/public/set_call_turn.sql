CREATE OR REPLACE FUNCTION public.set_call_turn(
  INOUT session_id uuid,
  used_turn boolean,
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
  FROM oblivion.advance_call(session_id, 'turn', used_turn, current_user::text COLLATE "default") AS a;
END;
