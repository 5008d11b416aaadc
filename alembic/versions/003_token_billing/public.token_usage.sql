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

COMMENT ON TABLE public.token_usage IS 'Log of the tokens that calls consumed.';
COMMENT ON COLUMN public.token_usage.id IS 'Identifier of the row.';
COMMENT ON COLUMN public.token_usage.user_id IS 'The account that paid.';
COMMENT ON COLUMN public.token_usage.session_id IS
  'Id of the call, as text; the call of an old row may not exist any more.';
COMMENT ON COLUMN public.token_usage.tokens_used IS 'Tokens that the call cost.';
COMMENT ON COLUMN public.token_usage."timestamp" IS 'When the usage was logged.';
COMMENT ON COLUMN public.token_usage.mode IS 'Mode that is priced: voice (a voice-only call) or video.';
COMMENT ON COLUMN public.token_usage.used_turn IS 'Whether the TURN rate applied.';
COMMENT ON COLUMN public.token_usage.duration_seconds IS 'Length of the call in seconds; NULL if unknown.';
