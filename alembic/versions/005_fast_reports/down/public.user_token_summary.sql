CREATE VIEW public.user_token_summary WITH (security_invoker = true) AS
SELECT
  a.user_id,
  a.tokens_remaining,
  a.subscription_tier,
  a.created_at AS account_created,
  COALESCE(sum(u.tokens_used), 0::bigint) AS total_tokens_used,
  count(u.id) AS total_sessions,
  max(u."timestamp") AS last_usage
FROM public.user_accounts a
LEFT JOIN public.token_usage u USING (user_id)
GROUP BY a.user_id, a.tokens_remaining, a.subscription_tier, a.created_at;

DO $$
BEGIN
  REVOKE ALL ON TABLE public.user_token_summary FROM PUBLIC CASCADE;
  IF to_regrole('anon') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.user_token_summary FROM anon CASCADE;
    IF oblivion.open_access() THEN
      GRANT SELECT ON TABLE public.user_token_summary TO anon;
    END IF;
  END IF;
  IF to_regrole('authenticated') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.user_token_summary FROM authenticated CASCADE;
    GRANT SELECT ON TABLE public.user_token_summary TO authenticated;
  END IF;
  IF to_regrole('service_role') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.user_token_summary FROM service_role CASCADE;
    GRANT SELECT ON TABLE public.user_token_summary TO service_role;
  END IF;
END
$$;

COMMENT ON VIEW public.user_token_summary IS 'Balance and total usage of each account, one row for each account.';
COMMENT ON COLUMN public.user_token_summary.user_id IS 'The account.';
COMMENT ON COLUMN public.user_token_summary.tokens_remaining IS 'Tokens left to spend.';
COMMENT ON COLUMN public.user_token_summary.subscription_tier IS 'free, pro or enterprise.';
COMMENT ON COLUMN public.user_token_summary.account_created IS 'When the account was opened.';
COMMENT ON COLUMN public.user_token_summary.total_tokens_used IS 'Sum of tokens_used of the account; 0 without usage.';
COMMENT ON COLUMN public.user_token_summary.total_sessions IS 'Rows of token_usage of the account; 0 without usage.';
COMMENT ON COLUMN public.user_token_summary.last_usage IS 'When the account last used tokens; NULL without usage.';
