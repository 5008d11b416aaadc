CREATE FUNCTION public.open_account()
RETURNS TABLE (user_id text, status text, balance integer)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.open_account() AS a;
END;

COMMENT ON FUNCTION public.open_account() IS
  'Opens the account of the signed-in user, if there is none yet. Call it at each sign-in. Returns one row. user_id: the '
  'user. status: ok (opened now); known (the account was there); closed (there is none, and the owner lets nobody, or no '
  'anonymous user, open one). balance: tokens left, NULL without an account. A user whose account was deleted gets it '
  'back with 0 tokens. Errors: 42501 nobody is signed in.';
