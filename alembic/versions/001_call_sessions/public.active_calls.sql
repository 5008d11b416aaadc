CREATE VIEW public.active_calls WITH (security_invoker = true) AS
SELECT
  id,
  room_id,
  mode,
  used_turn,
  start_time,
  now() - start_time AS duration
FROM public.call_sessions
WHERE end_time IS NULL
ORDER BY start_time DESC;

COMMENT ON VIEW public.active_calls IS 'Running calls, newest first.';
COMMENT ON COLUMN public.active_calls.id IS 'Identifier of the call.';
COMMENT ON COLUMN public.active_calls.room_id IS 'Room identifier.';
COMMENT ON COLUMN public.active_calls.mode IS 'video or voice-only.';
COMMENT ON COLUMN public.active_calls.used_turn IS 'Whether a TURN relay carries the media.';
COMMENT ON COLUMN public.active_calls.start_time IS 'When the call began.';
COMMENT ON COLUMN public.active_calls.duration IS 'How long the call has been running.';
