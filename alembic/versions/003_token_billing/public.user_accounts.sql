CREATE TABLE IF NOT EXISTS public.user_accounts (
  user_id text NOT NULL,
  tokens_remaining integer DEFAULT 100 NOT NULL,
  created_at timestamptz DEFAULT now() NOT NULL,
  updated_at timestamptz DEFAULT now() NOT NULL,
  email text,
  subscription_tier text DEFAULT 'free' NOT NULL,
  CONSTRAINT user_accounts_pkey PRIMARY KEY (user_id),
  CONSTRAINT positive_tokens CHECK (tokens_remaining >= 0),
  CONSTRAINT user_accounts_subscription_tier_check CHECK (subscription_tier IN ('free', 'pro', 'enterprise'))
);
