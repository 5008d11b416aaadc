CREATE OR REPLACE FUNCTION public.start_call(
  user_id text, room_id text, mode text, used_turn boolean DEFAULT false, client_key text DEFAULT NULL
)
RETURNS oblivion.live_calls
LANGUAGE sql
SET search_path = ''
RETURN oblivion.start_call(user_id, room_id, mode, used_turn, client_key, current_user::text COLLATE "default");

COMMENT ON FUNCTION public.start_call(text, text, text, boolean, text) IS
  'Starts a metered call, by the server''s clock. Nothing is charged yet. user_id: the account that pays, or NULL for '
  'a visitor. room_id: the room. mode: video or voice-only. used_turn: whether a TURN relay carries the media. '
  'client_key: an idempotency key of 1 to 200 characters; a repeated start with the same user and key returns the '
  'first call. Returns one row. session_id: the call. status: ok; short (the balance does not cover one minute); '
  'not_billed (no account pays); ended (the call of client_key has ended). charged, shortfall: 0. balance: tokens '
  'left. minutes_billed: 0, or NULL for a repeated start. minutes_left: whole minutes that the balance covers, NULL '
  'at a rate of zero. credit_cost: tokens due in all. Errors: 22023 unknown mode, room_id is NULL or empty, or '
  'client_key is empty or too long; 23505 client_key belongs to a call in another room or mode; 42501 user_id is another user; '
  '55000 no rate in token_rates.';
