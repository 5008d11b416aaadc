CREATE FUNCTION oblivion.call_amounts(start_time timestamp with time zone, end_time timestamp with time zone, mode text, used_turn boolean, credit_cost numeric)
RETURNS TABLE(call_date date, calls bigint, turn_calls bigint, video_calls bigint, voice_calls bigint, credits numeric, credits_unknown bigint, ended_calls bigint, seconds numeric)
LANGUAGE sql
IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
SELECT ((start_time AT TIME ZONE 'UTC'::text))::date AS timezone,
     1,
     (used_turn)::integer AS used_turn,
     ((mode = 'video'::text))::integer AS int4,
     ((mode = 'voice-only'::text))::integer AS int4,
         CASE
             WHEN (credit_cost = 'NaN'::numeric) THEN (0)::numeric
             ELSE credit_cost
         END AS credit_cost,
     ((credit_cost = 'NaN'::numeric))::integer AS int4,
         CASE
             WHEN (isfinite(start_time) AND isfinite(end_time)) THEN 1
             ELSE 0
         END AS "case",
         CASE
             WHEN (isfinite(start_time) AND isfinite(end_time)) THEN (EXTRACT(epoch FROM end_time) - EXTRACT(epoch FROM start_time))
             ELSE (0)::numeric
         END AS "case";
END;
