CREATE TABLE IF NOT EXISTS public.token_usage (
  id uuid DEFAULT gen_random_uuid() NOT NULL,
  user_id text NOT NULL,
  session_id text NOT NULL,
  tokens_used integer NOT NULL,
  "timestamp" timestamptz DEFAULT now() NOT NULL,
  mode text NOT NULL,
  used_turn boolean NOT NULL,
  duration_seconds integer,
  CONSTRAINT token_usage_pkey PRIMARY KEY (id),
  CONSTRAINT fk_token_usage_user_id FOREIGN KEY (user_id)
    REFERENCES public.user_accounts (user_id) ON DELETE CASCADE,
  CONSTRAINT positive_token_usage CHECK (tokens_used >= 0),
  CONSTRAINT token_usage_mode_check CHECK (mode IN ('voice', 'video')),
  CONSTRAINT valid_duration CHECK (duration_seconds IS NULL OR duration_seconds >= 0)
);
