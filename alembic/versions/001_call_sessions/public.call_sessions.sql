CREATE TABLE IF NOT EXISTS public.call_sessions (
  id uuid DEFAULT gen_random_uuid() NOT NULL,
  room_id text NOT NULL,
  start_time timestamptz DEFAULT now() NOT NULL,
  end_time timestamptz,
  mode text NOT NULL,
  used_turn boolean DEFAULT false NOT NULL,
  credit_cost numeric(10, 4) DEFAULT 0.00 NOT NULL,
  user_id text,
  created_at timestamptz DEFAULT now() NOT NULL,
  updated_at timestamptz DEFAULT now() NOT NULL,
  CONSTRAINT call_sessions_pkey PRIMARY KEY (id),
  CONSTRAINT call_sessions_mode_check CHECK (mode IN ('video', 'voice-only'))
);

COMMENT ON TABLE public.call_sessions IS 'One row for each embedded call.';
COMMENT ON COLUMN public.call_sessions.id IS 'Identifier of the call.';
COMMENT ON COLUMN public.call_sessions.room_id IS 'Room identifier, chosen by the embedding page.';
COMMENT ON COLUMN public.call_sessions.start_time IS 'When the call began, by the client''s clock.';
COMMENT ON COLUMN public.call_sessions.end_time IS 'When the call ended; NULL while it is running.';
COMMENT ON COLUMN public.call_sessions.mode IS 'What the call carries: video or voice-only.';
COMMENT ON COLUMN public.call_sessions.used_turn IS 'Whether a TURN relay carried the media.';
COMMENT ON COLUMN public.call_sessions.credit_cost IS 'What the call cost, as the client reports it.';
COMMENT ON COLUMN public.call_sessions.user_id IS
  'Who pays: an account, anonymous_<n>, or NULL. No foreign key: the account need not exist.';
COMMENT ON COLUMN public.call_sessions.created_at IS 'When the row was inserted.';
COMMENT ON COLUMN public.call_sessions.updated_at IS 'When the row last changed; a trigger sets it.';
