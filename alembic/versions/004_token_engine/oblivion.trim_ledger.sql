-- Retention, for the owner. For each account one row replaces all rows up to the last one before that moment. It
-- carries their sum, and has the id and the time of the last one.
-- Idempotency keys are deleted with their rows: a credit that is retried after that is credited again.
CREATE FUNCTION oblivion.trim_ledger(before timestamptz)
RETURNS bigint
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  -- One session trims at a time: the next one has to see the rows that this one wrote.
  SELECT pg_advisory_xact_lock(hashtextextended('oblivion.trim_ledger', 0));
  WITH past AS (
    SELECT l.user_id, max(l.id) AS last
    FROM public.token_ledger AS l
    WHERE l.created_at < trim_ledger.before
    GROUP BY l.user_id
    HAVING count(*) > 1
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
  SELECT (SELECT count(*) FROM trimmed) - (SELECT count(*) FROM carried);
END;

COMMENT ON FUNCTION oblivion.trim_ledger(timestamptz) IS
  'Retention, for the owner: replaces the rows of each account that are older than before by one row with their sum. '
  'Returns by how many rows the ledger shrank.';
