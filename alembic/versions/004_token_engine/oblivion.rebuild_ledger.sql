-- The balance is right: it is what the account pays with. So this changes no balance, and no row that is there: those
-- are answers that were given. It appends a row of kind correction, with the tokens that the ledger lacks, which says
-- when that was found. balance_audit takes it for the new base.
-- Writers go on. Those of an account that is wrong wait until this commits; so does whoever opens an account, if rows
-- are left of accounts that are gone: nothing else can be locked for these.
CREATE FUNCTION oblivion.rebuild_ledger()
RETURNS bigint
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  wrong pg_catalog.text[];
  are_gone boolean;
  mended bigint;
BEGIN
  PERFORM oblivion.refuse_pages();
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE active_sql_transaction
      USING MESSAGE = 'rebuild_ledger() has to see what others have written', HINT = 'Call it in READ COMMITTED';
  END IF;
  -- One session folds, trims or rebuilds at a time: a second rebuild would append the same corrections again.
  PERFORM pg_advisory_xact_lock(hashtextextended('oblivion.trim_ledger', 0));
  wrong := ARRAY(SELECT a.user_id FROM oblivion.balance_audit AS a WHERE a.drift <> 0 OR a.gaps <> 0);
  are_gone := EXISTS (SELECT unnest(wrong) EXCEPT SELECT a.user_id FROM public.user_accounts AS a);
  IF are_gone THEN
    PERFORM pg_advisory_xact_lock(hashtextextended('oblivion.open_ledger', 0));
  END IF;
  -- In the order of a sweep, so that neither waits for the other.
  PERFORM FROM public.user_accounts AS a WHERE a.user_id = ANY (wrong) ORDER BY a.user_id FOR NO KEY UPDATE;
  -- A statement of its own: it sees what was committed before the locks were granted.
  WITH corrections AS (
    INSERT INTO public.token_ledger (user_id, kind, tokens, balance)
    SELECT
      a.user_id, 'correction', sign(a.drift) * least(abs(a.drift) - part * 2147483647, 2147483647), a.balance
    FROM oblivion.balance_audit AS a
    -- A drift beyond an integer takes several rows.
    CROSS JOIN LATERAL generate_series(0, abs(a.drift) / 2147483647) AS part
    WHERE a.user_id = ANY (wrong)
      AND (a.drift <> 0 OR a.gaps <> 0)
      AND (are_gone OR EXISTS (SELECT FROM public.user_accounts AS u WHERE u.user_id = a.user_id))
    RETURNING user_id
  )
  SELECT count(DISTINCT c.user_id) INTO mended FROM corrections AS c;
  RETURN mended;
END
$$;

COMMENT ON FUNCTION oblivion.rebuild_ledger() IS
  'Corrects, while writers go on, the ledger of each account whose balance was changed past the triggers, or whose rows '
  'are missing or doubled. It changes no balance: it appends a row of kind correction. Returns how many accounts were '
  'wrong.';
