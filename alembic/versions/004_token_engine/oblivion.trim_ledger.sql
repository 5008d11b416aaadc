-- Retention, for the owner. For each account one row replaces all rows up to the last one before that moment. It
-- carries their sum, and has the id and the time of the last one.
-- Idempotency keys are deleted with their rows: a credit that is retried after that is credited again.
CREATE FUNCTION oblivion.trim_ledger(before timestamptz)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  wrong pg_catalog.text[];
  shrank bigint;
BEGIN
  PERFORM oblivion.refuse_pages();
  -- One session trims at a time: the next one has to see the rows that this one wrote.
  PERFORM pg_advisory_xact_lock(hashtextextended('oblivion.trim_ledger', 0));
  wrong := oblivion.wrong_ledgers();
  WITH past AS (
    SELECT l.user_id, max(l.id) FILTER (WHERE l.created_at < trim_ledger.before) AS last
    FROM public.token_ledger AS l
    WHERE l.user_id <> ALL (wrong)
    GROUP BY l.user_id
    HAVING count(*) FILTER (WHERE l.created_at < trim_ledger.before) > 1
      -- Only with a correction do the rows before it add up to the balance.
      AND count(*) FILTER (WHERE l.created_at >= trim_ledger.before AND l.kind = 'correction') = 0
  ),
  trimmed AS (
    DELETE FROM public.token_ledger AS l
    USING past AS p
    WHERE l.user_id = p.user_id AND l.id <= p.last
    RETURNING l.user_id, l.id, l.created_at, l.balance, l.id = p.last AS is_last
  ),
  carried AS (
    INSERT INTO public.token_ledger (user_id, id, created_at, kind, tokens, balance)
    OVERRIDING SYSTEM VALUE
    SELECT t.user_id, t.id, t.created_at, 'carried', t.balance, t.balance
    FROM trimmed AS t
    WHERE t.is_last
    RETURNING 1
  )
  SELECT (SELECT count(*) FROM trimmed) - (SELECT count(*) FROM carried) INTO shrank;
  RETURN shrank;
END
$$;

COMMENT ON FUNCTION oblivion.trim_ledger(timestamptz) IS
  'Retention, for the owner: replaces the rows of each account that are older than before by one row with their sum. '
  'Returns by how many rows the ledger shrank. Accounts whose ledger is wrong keep all rows; a warning names them.';
