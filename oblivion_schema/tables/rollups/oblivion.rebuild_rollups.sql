-- Appends deltas for what the sums lack. One statement finds them, and its snapshot has both the rows and the deltas of
-- each writer, or neither. So writers need no lock. Only a second rebuild waits: it would append the same deltas again.
CREATE OR REPLACE FUNCTION oblivion.rebuild_rollups()
RETURNS bigint
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  off bigint;
  mended bigint := 0;
BEGIN
  PERFORM oblivion.refuse_pages();
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE active_sql_transaction
      USING MESSAGE = 'rebuild_rollups() has to see what others have repaired', HINT = 'Call it in READ COMMITTED';
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended('oblivion.rebuild_rollups', 0));
  -- Lock rows before sums, in the order of every other session: another order could deadlock.
  LOCK TABLE public.token_usage, public.call_sessions IN ACCESS SHARE MODE;
  INSERT INTO oblivion.usage_deltas (usage_date, mode, used_turn, sessions, tokens, seconds, has_lost_rows)
  SELECT d.usage_date, d.mode, d.used_turn, d.sessions, d.tokens, d.seconds, false
  FROM oblivion.daily_usage_drift AS d;
  GET DIAGNOSTICS off = ROW_COUNT;
  mended := mended + off;
  INSERT INTO oblivion.usage_deltas (user_id, sessions, tokens, seconds, last_usage, has_lost_rows)
  SELECT d.user_id, d.sessions, d.tokens, 0, d.last_usage, d.has_lost_rows
  FROM oblivion.user_usage_drift AS d;
  GET DIAGNOSTICS off = ROW_COUNT;
  mended := mended + off;
  PERFORM oblivion.fold_usage(10000 + mended::integer);
  INSERT INTO oblivion.call_deltas (
    call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
  )
  SELECT
    d.call_date, d.calls, d.turn_calls, d.video_calls, d.voice_calls,
    d.credits, d.credits_unknown, d.ended_calls, d.seconds
  FROM oblivion.daily_calls_drift AS d;
  GET DIAGNOSTICS off = ROW_COUNT;
  mended := mended + off;
  PERFORM oblivion.fold_calls(10000 + off::integer);
  -- Nothing is missing any more.
  DELETE FROM oblivion.backfills AS b WHERE b.name IN ('usage', 'calls');
  RETURN mended;
END
$$;

COMMENT ON FUNCTION oblivion.rebuild_rollups() IS
  'Repairs the roll-ups while writers go on. Returns how many sums were wrong.';
