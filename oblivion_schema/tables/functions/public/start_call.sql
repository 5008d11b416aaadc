CREATE OR REPLACE FUNCTION public.start_call(
  user_id text,
  room_id text,
  mode text,
  used_turn boolean DEFAULT false,
  client_key text DEFAULT NULL,
  OUT session_id uuid,
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
  FROM oblivion.start_call(user_id, room_id, mode, used_turn, client_key, current_user::text COLLATE "default") AS a;
END;
