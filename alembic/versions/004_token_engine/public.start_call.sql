CREATE FUNCTION public.start_call(
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

COMMENT ON FUNCTION public.start_call(text, text, text, boolean, text) IS
  'Starts a metered call by the server''s clock. mode: video or voice-only. With client_key, 1 to 200 characters, a '
  'repeated start gives the call of the first one. Returns a row. status: ok; short, the balance did not cover it; '
  'not_billed, nobody pays; unsettled, billing failed and is made up for later; ended, it had ended before; unknown, '
  'no such call, or not the caller''s. charged and shortfall: tokens, by this time. balance: tokens left. '
  'minutes_billed: started minutes in all. minutes_left: whole minutes that the balance covers. credit_cost: tokens '
  'due in all. Errors: 22023 unknown mode, no room, or a key of another length; 23505 a key that is known from '
  'another room or mode; 42501 another''s user_id; 55000 no rate.';
