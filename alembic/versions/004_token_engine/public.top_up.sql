CREATE FUNCTION public.top_up(
  INOUT user_id text, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer
)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.top_up(user_id, tokens, key) AS a;
END;

COMMENT ON FUNCTION public.top_up(text, integer, text) IS
  'Adds tokens to an account, once for each key. user_id: the account. tokens: a number above zero. key: an '
  'idempotency key of 1 to 200 characters. Returns one row: user_id, tokens and key as given; status: ok, or known '
  '(credited before; nothing was added now); balance: tokens after the credit. Errors: 22023 tokens is not above '
  'zero, or the key is missing, empty or too long; 22003 the balance would exceed an integer; 23503 no such account; '
  '23505 the key is known from another credit.';
