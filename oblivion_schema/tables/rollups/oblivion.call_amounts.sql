-- The trigger, the reports and the drift view share this definition.
-- NaN and infinite lengths are left out: they would stay in a sum after their row was deleted. A call that ends before
-- it starts, because a clock was set back, has no length: it is billed as none, too.
-- No SET search_path: it would keep PostgreSQL from inlining the function. The names in the body were bound at
-- creation.
CREATE OR REPLACE FUNCTION oblivion.call_amounts(
  start_time timestamptz,
  end_time timestamptz,
  mode text,
  used_turn boolean,
  credit_cost numeric
)
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
IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
  SELECT
    (start_time AT TIME ZONE 'UTC')::date,
    1,
    used_turn::integer,
    (mode = 'video')::integer,
    (mode = 'voice-only')::integer,
    CASE WHEN credit_cost = 'NaN' THEN 0 ELSE credit_cost END,
    (credit_cost = 'NaN')::integer,
    CASE WHEN isfinite(start_time) AND isfinite(end_time) THEN 1 ELSE 0 END,
    CASE
      WHEN isfinite(start_time) AND isfinite(end_time)
        THEN greatest(0, extract(epoch FROM end_time) - extract(epoch FROM start_time))
      ELSE 0
    END;
END;

COMMENT ON FUNCTION oblivion.call_amounts(timestamptz,timestamptz,text,boolean,numeric) IS
  'What one call adds to the sums of its UTC day.';
