CREATE TABLE IF NOT EXISTS public.token_rates (
  mode text NOT NULL,
  used_turn boolean NOT NULL,
  effective_from timestamptz DEFAULT now() NOT NULL,
  tokens_per_minute integer NOT NULL,
  CONSTRAINT token_rates_pkey PRIMARY KEY (mode, used_turn, effective_from),
  CONSTRAINT token_rates_mode_check CHECK (mode IN ('voice', 'video')),
  CONSTRAINT token_rates_tokens_per_minute_check CHECK (tokens_per_minute >= 0)
);
