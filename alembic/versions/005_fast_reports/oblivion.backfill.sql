-- Nobody waits for it: it locks no row, and each of its statements has in its snapshot all that a writer wrote, or
-- nothing of it. If it is interrupted, nothing was filled, and reports still compute what is missing.
CREATE FUNCTION oblivion.backfill()
RETURNS bigint
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  filled bigint := 0;
  opened bigint := 0;
BEGIN
  PERFORM oblivion.refuse_pages();
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE active_sql_transaction
      USING MESSAGE = 'backfill() has to see what others have filled', HINT = 'Call it in READ COMMITTED';
  END IF;
  -- One session fills at a time; the next one finds nothing to fill.
  PERFORM pg_advisory_xact_lock(hashtextextended('oblivion.backfill', 0));
  IF EXISTS (SELECT FROM oblivion.backfills AS b WHERE b.name IN ('usage', 'calls')) THEN
    filled := oblivion.rebuild_rollups();
  END IF;
  IF EXISTS (SELECT FROM oblivion.backfills AS b WHERE b.name = 'ledger') THEN
    -- Who trims or folds the ledger restates the rows that an opening is computed from.
    PERFORM pg_advisory_xact_lock(hashtextextended('oblivion.trim_ledger', 0));
    INSERT INTO public.token_ledger (user_id, id, created_at, kind, tokens, balance)
    OVERRIDING SYSTEM VALUE
    SELECT o.user_id, o.id, o.created_at, 'opening', o.tokens, o.balance
    FROM oblivion.missing_openings AS o;
    GET DIAGNOSTICS opened = ROW_COUNT;
    DELETE FROM oblivion.backfills AS b WHERE b.name = 'ledger';
  END IF;
  RETURN filled + opened;
END
$$;

COMMENT ON FUNCTION oblivion.backfill() IS
  'Fills in what an upgrade of big tables left, while clients go on. Returns how many rows and sums it wrote; 0 if '
  'nothing was left.';
