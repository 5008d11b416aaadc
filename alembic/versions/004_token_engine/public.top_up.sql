CREATE FUNCTION public.top_up(INOUT user_id text, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.top_up(user_id, tokens, key) AS a;
END;

COMMENT ON FUNCTION public.top_up(text, integer, text) IS
  'Adds tokens to an account, once for each key of 1 to 200 characters. Returns a row: status (ok; known: the answer '
  'is the first one''s) and balance (tokens after it). Errors: 22023 no tokens above zero, or no key; 22003 a balance '
  'beyond an integer; 23503 no account; 23505 a key that is known with other content.';
