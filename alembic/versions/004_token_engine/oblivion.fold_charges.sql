-- Retention, for the owner. A run is the charges of an account between two other rows. In each run one row replaces the
-- charges of a call that is over: it carries their sum, and has the id and the time of the last of them.
-- Other rows are answers that were given: they stay as they are. So does a charge that is not older than `before`.
-- The last charge of a run keeps its balance. So the next row is right, even if a session is about to write it: the
-- rows of an account are committed in the order of their ids, because their writers hold the lock of the account.
CREATE FUNCTION oblivion.fold_charges(before timestamptz)
RETURNS bigint
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  wrong pg_catalog.text[];
  shrank bigint;
BEGIN
  PERFORM oblivion.refuse_pages();
  -- One session folds or trims at a time: the next one has to see the rows that this one wrote.
  PERFORM pg_advisory_xact_lock(hashtextextended('oblivion.trim_ledger', 0));
  wrong := oblivion.wrong_ledgers();
  WITH entries AS NOT MATERIALIZED (
    SELECT
      l.user_id,
      l.id,
      l.session_id,
      l.tokens,
      -- A row that SQL of somebody's own labels as a charge may have a key, or add tokens: it stays, too.
      l.kind = 'charge' AND l.session_id IS NOT NULL AND l.key IS NULL AND l.tokens < 0
        AND l.created_at < fold_charges.before AS is_charge
    FROM public.token_ledger AS l
  ),
  -- Calls that are over, or deleted. If a reaped call goes on after all, its later charges are folded another time.
  past AS (
    SELECT e.user_id, e.session_id, e.last
    FROM (
      SELECT user_id, session_id, max(id) AS last
      FROM entries
      WHERE is_charge AND user_id <> ALL (wrong)
      GROUP BY user_id, session_id
      HAVING count(*) > 1
    ) AS e
    WHERE NOT EXISTS (
      SELECT
      FROM public.call_sessions AS c
      LEFT JOIN oblivion.call_meters AS m ON m.session_id = c.id
      WHERE c.id = e.session_id AND ((c.end_time < fold_charges.before) IS NOT TRUE OR NOT m.settled)
    )
  ),
  runs AS (
    SELECT
      e.user_id,
      e.id,
      e.tokens,
      CASE WHEN e.is_charge THEN p.session_id END AS call,
      count(*) FILTER (WHERE NOT e.is_charge) OVER until_now AS run,
      max(p.last) OVER until_now AS last
    FROM entries AS e
    LEFT JOIN past AS p ON p.user_id = e.user_id AND p.session_id = e.session_id
    WHERE e.user_id IN (SELECT user_id FROM past)
    WINDOW until_now AS (PARTITION BY e.user_id ORDER BY e.id)
  ),
  -- `folded` is NULL for a row that goes. Only rows between two charges of such a call can change.
  sums AS (
    SELECT
      user_id,
      id,
      tokens,
      CASE
        WHEN call IS NULL THEN tokens
        WHEN id = max(id) OVER of_call THEN (sum(tokens) OVER of_call)::integer
      END AS folded
    FROM runs
    WHERE id <= last
    WINDOW of_call AS (PARTITION BY user_id, run, call)
  ),
  changes AS (
    SELECT s.user_id, s.id, s.folded, s.shift
    FROM (
      SELECT *, sum(coalesce(folded, 0) - tokens) OVER (PARTITION BY user_id ORDER BY id) AS shift
      FROM sums
    ) AS s
    WHERE s.folded IS NULL OR s.folded <> s.tokens OR s.shift <> 0
  ),
  restated AS (
    UPDATE public.token_ledger AS l
    SET tokens = c.folded, balance = l.balance + c.shift
    FROM changes AS c
    WHERE l.user_id = c.user_id AND l.id = c.id AND c.folded IS NOT NULL
  ),
  gone AS (
    DELETE FROM public.token_ledger AS l
    USING changes AS c
    WHERE l.user_id = c.user_id AND l.id = c.id AND c.folded IS NULL
    RETURNING 1
  )
  SELECT count(*) INTO shrank FROM gone;
  RETURN shrank;
END
$$;

COMMENT ON FUNCTION oblivion.fold_charges(timestamptz) IS
  'Retention, for the owner: replaces the charges of each call that ended before that time, between two other rows of '
  'the account, by one row with their sum. Returns by how many rows the ledger shrank. Accounts whose ledger is wrong '
  'keep all rows; a warning names them.';
