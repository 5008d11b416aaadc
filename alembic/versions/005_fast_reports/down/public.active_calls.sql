CREATE OR REPLACE VIEW public.active_calls WITH (security_invoker = true) AS
SELECT
  call_sessions.id,
  call_sessions.room_id,
  call_sessions.mode,
  call_sessions.used_turn,
  call_sessions.start_time,
  now() - call_sessions.start_time AS duration
FROM public.call_sessions
WHERE call_sessions.end_time IS NULL
ORDER BY call_sessions.start_time DESC;
COMMENT ON COLUMN public.active_calls.duration IS 'How long the call has been running.';
