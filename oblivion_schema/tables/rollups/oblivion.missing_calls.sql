-- Works like missing_usage().
CREATE OR REPLACE FUNCTION oblivion.missing_calls()
RETURNS TABLE (
  call_date date,
  calls bigint,
  turn_calls bigint,
  video_calls bigint,
  voice_calls bigint,
  credits numeric,
  credits_unknown bigint,
  ended_calls bigint,
  seconds numeric
)
LANGUAGE sql
STABLE PARALLEL SAFE ROWS 100
SET search_path = ''
BEGIN ATOMIC
  SELECT
    d.call_date, d.calls, d.turn_calls, d.video_calls, d.voice_calls,
    d.credits, d.credits_unknown, d.ended_calls, d.seconds
  FROM oblivion.daily_calls_drift AS d;
END;

COMMENT ON FUNCTION oblivion.missing_calls() IS
  'What the roll-up of calls lacks of call_sessions: daily_billing_summary adds it until the roll-up is filled.';
