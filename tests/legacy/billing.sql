-- The billing script, which may run again, without its trigger.
CREATE TABLE IF NOT EXISTS user_accounts (
  user_id text PRIMARY KEY,
  tokens_remaining integer NOT NULL DEFAULT 100,
  created_at timestamptz DEFAULT now(),
  updated_at timestamptz DEFAULT now(),
  email text,
  subscription_tier text DEFAULT 'free' CHECK (subscription_tier IN ('free', 'pro', 'enterprise')),
  CONSTRAINT positive_tokens CHECK (tokens_remaining >= 0)
);
CREATE TABLE IF NOT EXISTS token_usage (
  id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
  user_id text NOT NULL,
  session_id text NOT NULL,
  tokens_used integer NOT NULL,
  timestamp timestamptz DEFAULT now(),
  mode text NOT NULL CHECK (mode IN ('voice', 'video')),
  used_turn boolean NOT NULL,
  duration_seconds integer,
  CONSTRAINT positive_token_usage CHECK (tokens_used >= 0),
  CONSTRAINT valid_duration CHECK (duration_seconds IS NULL OR duration_seconds >= 0),
  CONSTRAINT fk_token_usage_user_id FOREIGN KEY (user_id) REFERENCES user_accounts (user_id) ON DELETE CASCADE
);
CREATE INDEX IF NOT EXISTS idx_user_accounts_email ON user_accounts (email);
CREATE INDEX IF NOT EXISTS idx_user_accounts_tokens ON user_accounts (tokens_remaining);
CREATE INDEX IF NOT EXISTS idx_token_usage_user_id ON token_usage (user_id);
CREATE INDEX IF NOT EXISTS idx_token_usage_session_id ON token_usage (session_id);
CREATE INDEX IF NOT EXISTS idx_token_usage_timestamp ON token_usage (timestamp);
CREATE INDEX IF NOT EXISTS idx_token_usage_mode ON token_usage (mode);
CREATE INDEX IF NOT EXISTS idx_token_usage_user_date ON token_usage (user_id, timestamp);
CREATE INDEX IF NOT EXISTS idx_token_usage_billing ON token_usage (mode, used_turn, timestamp);

ALTER TABLE user_accounts ENABLE ROW LEVEL SECURITY;
ALTER TABLE token_usage ENABLE ROW LEVEL SECURITY;
DROP POLICY IF EXISTS "Allow all operations on user_accounts" ON user_accounts;
CREATE POLICY "Allow all operations on user_accounts" ON user_accounts FOR ALL USING (true) WITH CHECK (true);
DROP POLICY IF EXISTS "Allow all operations on token_usage" ON token_usage;
CREATE POLICY "Allow all operations on token_usage" ON token_usage FOR ALL USING (true) WITH CHECK (true);

CREATE OR REPLACE VIEW user_token_summary AS
SELECT
  a.user_id,
  a.tokens_remaining,
  a.subscription_tier,
  a.created_at AS account_created,
  coalesce(sum(u.tokens_used), 0) AS total_tokens_used,
  count(u.id) AS total_sessions,
  max(u.timestamp) AS last_usage
FROM user_accounts AS a
LEFT JOIN token_usage AS u ON u.user_id = a.user_id
GROUP BY a.user_id, a.tokens_remaining, a.subscription_tier, a.created_at;

CREATE OR REPLACE VIEW daily_token_usage AS
SELECT
  date(timestamp) AS usage_date,
  mode,
  used_turn,
  count(*) AS session_count,
  sum(tokens_used) AS total_tokens,
  avg(tokens_used) AS avg_tokens_per_session,
  sum(duration_seconds) / 60.0 AS total_minutes
FROM token_usage
WHERE timestamp >= current_date - interval '30 days'
GROUP BY date(timestamp), mode, used_turn
ORDER BY usage_date DESC, mode, used_turn;

INSERT INTO user_accounts (user_id, tokens_remaining, subscription_tier, email)
VALUES
  ('demo_user', 500, 'free', 'demo@oblivn.com'),
  ('test_user_1', 100, 'free', 'test1@oblivn.com'),
  ('test_user_2', 250, 'pro', 'test2@oblivn.com'),
  ('developer', 1000, 'enterprise', 'dev@oblivn.com')
ON CONFLICT (user_id) DO UPDATE SET tokens_remaining = greatest(user_accounts.tokens_remaining, 500)
WHERE user_accounts.user_id = 'demo_user';
