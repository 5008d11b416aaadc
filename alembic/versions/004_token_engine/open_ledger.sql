-- A table of up to 1 MB, some thousand accounts, gets its opening rows at once. A larger one is left to backfill(), for
-- which nobody waits.
DO $$
BEGIN
  IF pg_relation_size('public.user_accounts') > 1048576 THEN
    INSERT INTO oblivion.backfills (name) VALUES ('ledger');
  ELSE
    INSERT INTO public.token_ledger (user_id, kind, tokens, balance)
    SELECT a.user_id, 'opening', a.tokens_remaining, a.tokens_remaining
    FROM public.user_accounts AS a;
  END IF;
END
$$;
