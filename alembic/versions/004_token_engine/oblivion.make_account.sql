-- Opens the account empty, and then credits the tokens of a new one. Ledger rows tell who had an account before, which was
-- deleted or renamed: such a user gets none. The key of the credit is unique for each user, so two sessions that open the
-- same account at the same time credit it once, even if somebody deletes it in between.
-- Supabase signs in anonymous users, each of whom is a new one: they would get tokens without end.
CREATE FUNCTION oblivion.make_account(
  account text, email text, is_anonymous boolean, OUT status text, OUT balance integer
)
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  given CONSTANT integer := (SELECT s.tokens FROM oblivion.sign_up AS s);
BEGIN
  status := 'known';
  SELECT a.tokens_remaining INTO balance FROM public.user_accounts AS a WHERE a.user_id = account;
  IF FOUND THEN
    RETURN;
  ELSIF given IS NULL OR is_anonymous OR starts_with(account, 'anonymous_') THEN
    status := 'closed';
    RETURN;
  END IF;
  INSERT INTO public.user_accounts AS a (user_id, tokens_remaining, email)
  VALUES (account, 0, make_account.email)
  ON CONFLICT (user_id) DO NOTHING
  RETURNING a.tokens_remaining INTO balance;
  IF NOT FOUND THEN
    SELECT a.tokens_remaining INTO balance FROM public.user_accounts AS a WHERE a.user_id = account;
    RETURN;
  END IF;
  status := 'ok';
  IF given > 0 AND NOT EXISTS (
    SELECT FROM public.token_ledger AS l WHERE l.user_id = account AND l.kind IN ('closing', 'carried')
  ) THEN
    SELECT c.balance INTO balance
    FROM oblivion.credit_account(account, given, 'oblivion.sign_up', 'top_up', NULL, NULL) AS c
    WHERE c.status = 'ok';
    balance := coalesce(balance, 0);
  END IF;
END
$$;

COMMENT ON FUNCTION oblivion.make_account(text, text, boolean) IS
  'Opens the account of a new user, if the owner allows it. The common part of open_account() and '
  'open_account_of_user().';
