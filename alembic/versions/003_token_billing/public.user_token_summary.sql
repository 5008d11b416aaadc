CREATE VIEW public.user_token_summary WITH (security_invoker = true) AS
SELECT
  a.user_id,
  a.tokens_remaining,
  a.subscription_tier,
  a.created_at AS account_created,
  coalesce(sum(u.tokens_used), 0) AS total_tokens_used,
  count(u.id) AS total_sessions,
  max(u."timestamp") AS last_usage
FROM public.user_accounts AS a
LEFT JOIN public.token_usage AS u USING (user_id)
GROUP BY a.user_id, a.tokens_remaining, a.subscription_tier, a.created_at;

COMMENT ON VIEW public.user_token_summary IS 'Balance and total usage of each account, one row for each account.';
COMMENT ON COLUMN public.user_token_summary.user_id IS 'The account.';
COMMENT ON COLUMN public.user_token_summary.tokens_remaining IS 'Tokens left to spend.';
COMMENT ON COLUMN public.user_token_summary.subscription_tier IS 'free, pro or enterprise.';
COMMENT ON COLUMN public.user_token_summary.account_created IS 'When the account was opened.';
COMMENT ON COLUMN public.user_token_summary.total_tokens_used IS 'Sum of tokens_used of the account; 0 without usage.';
COMMENT ON COLUMN public.user_token_summary.total_sessions IS 'Rows of token_usage of the account; 0 without usage.';
COMMENT ON COLUMN public.user_token_summary.last_usage IS 'When the account last used tokens; NULL without usage.';
