CREATE OR REPLACE VIEW public.active_calls WITH (security_invoker = true) AS
SELECT
  call_sessions.id,
  call_sessions.room_id,
  call_sessions.mode,
  call_sessions.used_turn,
  call_sessions.start_time,
      CASE
          WHEN isfinite(call_sessions.start_time) THEN now() - call_sessions.start_time
          ELSE NULL::interval
      END AS duration
FROM public.call_sessions
WHERE call_sessions.end_time IS NULL
ORDER BY call_sessions.start_time DESC;
