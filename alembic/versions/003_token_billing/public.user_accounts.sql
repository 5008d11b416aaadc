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

COMMENT ON TABLE public.user_accounts IS 'Token balances, one row for each account.';
COMMENT ON COLUMN public.user_accounts.user_id IS 'The user who owns the account.';
COMMENT ON COLUMN public.user_accounts.tokens_remaining IS 'Tokens left to spend.';
COMMENT ON COLUMN public.user_accounts.created_at IS 'When the account was opened.';
COMMENT ON COLUMN public.user_accounts.updated_at IS 'When the row last changed; a trigger sets it.';
COMMENT ON COLUMN public.user_accounts.email IS 'Email address of the user.';
COMMENT ON COLUMN public.user_accounts.subscription_tier IS 'Plan of the user: free, pro or enterprise.';
