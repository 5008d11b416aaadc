COMMENT ON COLUMN public.call_sessions.start_time IS
  'When the call began, by the client''s clock; for a call of start_call() by the server''s.';
COMMENT ON COLUMN public.call_sessions.credit_cost IS
  'Metered call: tokens due, written by the engine when the call turns or ends. Other call: its cost, as the client '
  'reports it.';
COMMENT ON COLUMN public.token_usage.tokens_used IS 'Tokens that the call, or a segment of it, cost.';
COMMENT ON COLUMN public.token_usage.duration_seconds IS
  'Length of the call, or of the segment, in seconds; NULL if unknown.';
