-- Works like note_usage().
CREATE FUNCTION oblivion.note_calls()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  noted integer;
BEGIN
  IF TG_RELID <> 'public.call_sessions'::pg_catalog.regclass THEN
    RAISE insufficient_privilege USING MESSAGE = 'Only a trigger of call_sessions may do that';
  END IF;
  IF TG_OP = 'INSERT' THEN
    INSERT INTO oblivion.call_deltas (
      call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
    )
    SELECT
      c.call_date, sum(c.calls), sum(c.turn_calls), sum(c.video_calls), sum(c.voice_calls),
      sum(c.credits), sum(c.credits_unknown), sum(c.ended_calls), sum(c.seconds)
    FROM added AS a
    CROSS JOIN LATERAL oblivion.call_amounts(a.start_time, a.end_time, a.mode, a.used_turn, a.credit_cost) AS c
    GROUP BY c.call_date;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO oblivion.call_deltas (
      call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
    )
    SELECT
      c.call_date, -sum(c.calls), -sum(c.turn_calls), -sum(c.video_calls), -sum(c.voice_calls),
      -sum(c.credits), -sum(c.credits_unknown), -sum(c.ended_calls), -sum(c.seconds)
    FROM removed AS r
    CROSS JOIN LATERAL oblivion.call_amounts(r.start_time, r.end_time, r.mode, r.used_turn, r.credit_cost) AS c
    GROUP BY c.call_date;
  ELSE
    -- One call ends, and nothing else changes but its cost. The other statement would sum up one row.
    INSERT INTO oblivion.call_deltas (
      call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
    )
    SELECT c.call_date, 0, 0, 0, 0, c.credits, 0, c.ended_calls, c.seconds
    FROM added AS a
    CROSS JOIN removed AS r
    CROSS JOIN LATERAL oblivion.call_amounts(
      a.start_time, a.end_time, a.mode, a.used_turn, a.credit_cost - r.credit_cost
    ) AS c
    WHERE r.end_time IS NULL AND a.end_time IS NOT NULL
      AND (a.start_time, a.mode, a.used_turn) = (r.start_time, r.mode, r.used_turn)
      AND c.credits_unknown = 0
      AND NOT EXISTS (SELECT FROM added OFFSET 1);
    IF NOT FOUND THEN
      INSERT INTO oblivion.call_deltas (
        call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
      )
      SELECT
        c.call_date, sum(s.sign * c.calls), sum(s.sign * c.turn_calls), sum(s.sign * c.video_calls),
        sum(s.sign * c.voice_calls), sum(s.sign * c.credits), sum(s.sign * c.credits_unknown),
        sum(s.sign * c.ended_calls), sum(s.sign * c.seconds)
      FROM (
        SELECT 1 AS sign, a.start_time, a.end_time, a.mode, a.used_turn, a.credit_cost FROM added AS a
        UNION ALL
        SELECT -1, r.start_time, r.end_time, r.mode, r.used_turn, r.credit_cost FROM removed AS r
      ) AS s
      CROSS JOIN LATERAL oblivion.call_amounts(s.start_time, s.end_time, s.mode, s.used_turn, s.credit_cost) AS c
      GROUP BY c.call_date
      HAVING (
        sum(s.sign * c.calls), sum(s.sign * c.turn_calls), sum(s.sign * c.video_calls), sum(s.sign * c.voice_calls),
        sum(s.sign * c.credits), sum(s.sign * c.credits_unknown), sum(s.sign * c.ended_calls), sum(s.sign * c.seconds)
      ) <> (0, 0, 0, 0, 0, 0, 0, 0);
    END IF;
  END IF;
  GET DIAGNOSTICS noted = ROW_COUNT;
  IF random() * 1000 < noted THEN
    PERFORM oblivion.fold_calls(10000 + noted);
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.note_calls() IS
  'Trigger on call_sessions: appends to call_deltas what the statement changed.';
