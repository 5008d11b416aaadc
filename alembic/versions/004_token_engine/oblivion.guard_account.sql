-- A new account that a page opens has at most what the column gives by default, and what sign-up gives. An account that
-- was closed has at most what it had then. A page that deletes an account would delete its balance, and calls that go on would cost nothing.
CREATE FUNCTION oblivion.guard_account()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  allowed integer;
  expression pg_catalog.text;
BEGIN
  IF TG_RELID <> 'public.user_accounts'::pg_catalog.regclass THEN
    RAISE insufficient_privilege USING MESSAGE = 'Only a trigger of user_accounts may do that';
  END IF;
  IF oblivion.page_billing() <> 'metered' OR NOT oblivion.is_page() THEN
    RETURN coalesce(NEW, OLD);
  ELSIF TG_OP = 'DELETE' THEN
    RETURN NULL;
  END IF;
  SELECT pg_get_expr(d.adbin, d.adrelid)
  INTO expression
  FROM pg_catalog.pg_attrdef AS d
  JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
  WHERE d.adrelid = TG_RELID AND a.attname = 'tokens_remaining';
  EXECUTE 'SELECT ' || coalesce(expression, '0') INTO allowed;
  SELECT least(allowed, -l.tokens, s.tokens)
  INTO allowed
  FROM (SELECT 1) AS one
  LEFT JOIN oblivion.sign_up AS s ON true
  LEFT JOIN (
    SELECT e.kind, e.tokens FROM public.token_ledger AS e WHERE e.user_id = NEW.user_id ORDER BY e.id DESC LIMIT 1
  ) AS l ON l.kind = 'closing' OR l.kind = 'carried' AND l.tokens = 0;
  IF NOT oblivion.open_access() THEN
    NEW.subscription_tier := 'free';
  END IF;
  IF NEW.tokens_remaining > allowed THEN
    NEW.tokens_remaining := allowed;
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION oblivion.guard_account() IS
  'Trigger: an account that a page opens has at most the default balance, and a page deletes none, if pages are metered.';
