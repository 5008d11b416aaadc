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
