CREATE TABLE IF NOT EXISTS public.token_rates (
  mode text NOT NULL,
  used_turn boolean NOT NULL,
  effective_from timestamptz DEFAULT now() NOT NULL,
  tokens_per_minute integer NOT NULL,
  CONSTRAINT token_rates_pkey PRIMARY KEY (mode, used_turn, effective_from),
  CONSTRAINT token_rates_mode_check CHECK (mode IN ('voice', 'video')),
  CONSTRAINT token_rates_tokens_per_minute_check CHECK (tokens_per_minute >= 0)
);

COMMENT ON TABLE public.token_rates IS 'Tokens for each started minute of a call, by mode and TURN.';
COMMENT ON COLUMN public.token_rates.mode IS 'voice (a voice-only call) or video.';
COMMENT ON COLUMN public.token_rates.used_turn IS 'Whether a TURN relay carries the media.';
COMMENT ON COLUMN public.token_rates.effective_from IS
  'When the rate takes effect; it holds until the next rate takes effect.';
COMMENT ON COLUMN public.token_rates.tokens_per_minute IS 'Tokens for each started minute.';
