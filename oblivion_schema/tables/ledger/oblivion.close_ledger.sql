-- TRUNCATE fires no row triggers, so write_ledger() does not run.
CREATE OR REPLACE FUNCTION oblivion.close_ledger()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF TG_RELID <> 'public.user_accounts'::pg_catalog.regclass THEN
    RAISE insufficient_privilege USING MESSAGE = 'Only a trigger of user_accounts may do that';
  END IF;
  INSERT INTO public.token_ledger (user_id, kind, tokens, balance)
  SELECT a.user_id, 'closing', -a.tokens_remaining, 0
  FROM public.user_accounts AS a;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.close_ledger() IS 'Trigger: writes a closing row for each account before TRUNCATE.';
