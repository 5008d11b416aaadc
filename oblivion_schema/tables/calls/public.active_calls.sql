CREATE VIEW public.active_calls WITH (security_invoker = true) AS
SELECT
  id,
  room_id,
  mode,
  used_turn,
  start_time,
  CASE WHEN isfinite(start_time) THEN now() - start_time END AS duration
FROM public.call_sessions
WHERE end_time IS NULL
ORDER BY start_time DESC;

COMMENT ON VIEW public.active_calls IS 'Running calls, newest first.';
