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

COMMENT ON VIEW public.user_token_summary IS 'What each account has left and what it used, one row for each account.';
COMMENT ON COLUMN public.user_token_summary.user_id IS 'The account.';
COMMENT ON COLUMN public.user_token_summary.tokens_remaining IS 'Tokens left to spend.';
COMMENT ON COLUMN public.user_token_summary.subscription_tier IS 'free, pro or enterprise.';
COMMENT ON COLUMN public.user_token_summary.account_created IS 'When the account was opened.';
COMMENT ON COLUMN public.user_token_summary.total_tokens_used IS 'Tokens that it ever used; 0 where none were.';
COMMENT ON COLUMN public.user_token_summary.total_sessions IS 'Its rows of usage; 0 where there are none.';
COMMENT ON COLUMN public.user_token_summary.last_usage IS 'When it last used any; NULL where it never did.';
