-- Folds in the transaction of the session that calls it. Other sessions go on, and read the deltas meanwhile.
-- `most` limits the deltas that one call folds, so that no session waits long if many deltas have piled up.
CREATE FUNCTION oblivion.fold_usage(most integer)
RETURNS void
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  emptied_days pg_catalog.date[];
  emptied_users pg_catalog.text[];
BEGIN
  -- One session folds at a time; the others skip it. A trigger folds only in READ COMMITTED: an older snapshot may show a
  -- delta that another session has folded since, which is an error (40001) that the writer did not ask for.
  IF pg_trigger_depth() > 0 AND current_setting('transaction_isolation') <> 'read committed' THEN
    RETURN;
  ELSIF NOT pg_try_advisory_xact_lock(hashtextextended('oblivion.fold_usage', 0)) THEN
    IF pg_trigger_depth() = 0 THEN
      RAISE NOTICE 'Another transaction is folding oblivion.usage_deltas: nothing was folded now' USING HINT = 'Repeat it';
    END IF;
    RETURN;
  END IF;
  WITH folded AS (
    DELETE FROM oblivion.usage_deltas AS d
    WHERE d.ctid = ANY (ARRAY(SELECT o.ctid FROM oblivion.usage_deltas AS o LIMIT most))
    RETURNING d.*
  ),
  days AS (
    INSERT INTO oblivion.daily_usage AS u (usage_date, mode, used_turn, sessions, tokens, seconds)
    SELECT f.usage_date, f.mode, f.used_turn, sum(f.sessions), sum(f.tokens), sum(f.seconds)
    FROM folded AS f
    -- Rows of a table that takes NULL there belong to no sum: verify names that table.
    WHERE f.usage_date IS NOT NULL AND f.mode IS NOT NULL AND f.used_turn IS NOT NULL
    GROUP BY f.usage_date, f.mode, f.used_turn
    ON CONFLICT (usage_date, mode, used_turn) DO UPDATE
    SET sessions = u.sessions + excluded.sessions,
      tokens = u.tokens + excluded.tokens,
      seconds = u.seconds + excluded.seconds
    RETURNING u.usage_date, u.sessions
  ),
  users AS (
    INSERT INTO oblivion.user_usage AS u (user_id, sessions, tokens, last_usage, has_lost_rows)
    SELECT f.user_id, sum(f.sessions), sum(f.tokens), max(f.last_usage), bool_or(f.has_lost_rows)
    FROM folded AS f
    WHERE f.user_id IS NOT NULL
    GROUP BY f.user_id
    ON CONFLICT (user_id) DO UPDATE
    SET sessions = u.sessions + excluded.sessions,
      tokens = u.tokens + excluded.tokens,
      last_usage = greatest(u.last_usage, excluded.last_usage),
      has_lost_rows = u.has_lost_rows OR excluded.has_lost_rows
    RETURNING u.user_id, u.sessions
  )
  SELECT
    (SELECT array_agg(d.usage_date) FROM days AS d WHERE d.sessions = 0),
    (SELECT array_agg(s.user_id) FROM users AS s WHERE s.sessions = 0)
  INTO emptied_days, emptied_users;
  DELETE FROM oblivion.daily_usage AS u
  WHERE u.usage_date = ANY (emptied_days) AND u.sessions = 0 AND u.tokens = 0 AND u.seconds = 0;
  -- Keep the row while the account has deltas: its has_lost_rows may be about rows that are still in a delta.
  DELETE FROM oblivion.user_usage AS u
  WHERE u.user_id = ANY (emptied_users) AND u.sessions = 0 AND u.tokens = 0
    AND NOT EXISTS (SELECT FROM oblivion.usage_deltas AS d WHERE d.user_id = u.user_id);
END
$$;

COMMENT ON FUNCTION oblivion.fold_usage(integer) IS
  'Folds up to most deltas into daily_usage and user_usage; one session at a time.';
