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
  'What a call would cost. mode: video or voice-only. Returns a row: status (ok; short, not a minute; not_billed, no '
  'account; unknown, another''s), tokens_per_minute, rate_from (the date of that rate), balance (tokens), '
  'minutes_left (whole minutes that it covers). Errors: 22023 unknown mode; 55000 no rate.';
