-- Works like fold_usage().
CREATE FUNCTION oblivion.fold_calls(most integer)
RETURNS void
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  emptied pg_catalog.date[];
BEGIN
  IF pg_trigger_depth() > 0 AND current_setting('transaction_isolation') <> 'read committed' THEN
    RETURN;
  ELSIF NOT pg_try_advisory_xact_lock(hashtextextended('oblivion.fold_calls', 0)) THEN
    IF pg_trigger_depth() = 0 THEN
      RAISE NOTICE 'Another transaction is folding oblivion.call_deltas: nothing was folded now' USING HINT = 'Repeat it';
    END IF;
    RETURN;
  END IF;
  WITH folded AS (
    DELETE FROM oblivion.call_deltas AS d
    WHERE d.ctid = ANY (ARRAY(SELECT o.ctid FROM oblivion.call_deltas AS o LIMIT most))
    RETURNING d.*
  ),
  days AS (
    INSERT INTO oblivion.daily_calls AS u (
      call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
    )
    SELECT
      f.call_date, sum(f.calls), sum(f.turn_calls), sum(f.video_calls), sum(f.voice_calls),
      sum(f.credits), sum(f.credits_unknown), sum(f.ended_calls), sum(f.seconds)
    FROM folded AS f
    GROUP BY f.call_date
    ON CONFLICT (call_date) DO UPDATE
    SET calls = u.calls + excluded.calls,
      turn_calls = u.turn_calls + excluded.turn_calls,
      video_calls = u.video_calls + excluded.video_calls,
      voice_calls = u.voice_calls + excluded.voice_calls,
      credits = u.credits + excluded.credits,
      credits_unknown = u.credits_unknown + excluded.credits_unknown,
      ended_calls = u.ended_calls + excluded.ended_calls,
      seconds = u.seconds + excluded.seconds
    RETURNING u.call_date, u.calls
  )
  SELECT array_agg(d.call_date) INTO emptied FROM days AS d WHERE d.calls = 0;
  DELETE FROM oblivion.daily_calls AS u
  WHERE u.call_date = ANY (emptied)
    AND (u.calls, u.turn_calls, u.video_calls, u.voice_calls, u.credits, u.credits_unknown, u.ended_calls, u.seconds)
      = (0, 0, 0, 0, 0, 0, 0, 0);
END
$$;

COMMENT ON FUNCTION oblivion.fold_calls(integer) IS 'Folds up to most deltas into daily_calls; one session at a time.';
