CREATE FUNCTION public.call_quote(
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

COMMENT ON FUNCTION public.call_quote(text, text, boolean) IS
  'What a call would cost; nothing is changed. user_id: the account that would pay. mode: video or voice-only. '
  'used_turn: whether a TURN relay would carry the media, false by default. Returns one row. status: ok; short (the '
  'balance does not cover one minute); not_billed (no account pays); unknown (user_id is another user). '
  'tokens_per_minute: tokens for each started minute. rate_from: when that rate took effect. balance: tokens left. '
  'minutes_left: whole minutes that the balance covers, NULL at a rate of zero. Errors: 22023 unknown mode; 55000 no '
  'rate in token_rates.';
