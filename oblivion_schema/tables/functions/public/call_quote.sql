CREATE OR REPLACE FUNCTION public.call_quote(
  user_id text,
  mode text,
  used_turn boolean DEFAULT false,
  OUT status text,
  OUT tokens_per_minute integer,
  OUT rate_from timestamptz,
  OUT balance integer,
  OUT minutes_left integer
)
LANGUAGE sql
STABLE
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.call_quote(user_id, mode, used_turn, current_user::text COLLATE "default") AS a;
END;
