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

COMMENT ON VIEW public.user_token_summary IS 'What each account has left and what it used, one row for each account.';
COMMENT ON COLUMN public.user_token_summary.user_id IS 'The account.';
COMMENT ON COLUMN public.user_token_summary.tokens_remaining IS 'Tokens left to spend.';
COMMENT ON COLUMN public.user_token_summary.subscription_tier IS 'free, pro or enterprise.';
COMMENT ON COLUMN public.user_token_summary.account_created IS 'When the account was opened.';
COMMENT ON COLUMN public.user_token_summary.total_tokens_used IS 'Tokens that it ever used; 0 where none were.';
COMMENT ON COLUMN public.user_token_summary.total_sessions IS 'Its rows of usage; 0 where there are none.';
COMMENT ON COLUMN public.user_token_summary.last_usage IS 'When it last used any; NULL where it never did.';
