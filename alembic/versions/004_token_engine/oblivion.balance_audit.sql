CREATE VIEW oblivion.balance_audit WITH (security_invoker = true) AS
SELECT
  COALESCE(a.user_id, l.user_id) AS user_id,
  COALESCE(a.tokens_remaining, 0) AS balance,
  COALESCE(l.tokens, 0::bigint) AS ledger,
  COALESCE(a.tokens_remaining, 0) - COALESCE(l.tokens, 0::bigint) AS drift,
  COALESCE(l.gaps, 0::bigint) AS gaps
FROM public.user_accounts a
FULL JOIN ( SELECT entries.user_id,
          sum(entries.tokens) AS tokens,
          count(*) FILTER (WHERE entries.balance <> (COALESCE(entries.before, 0) + entries.tokens)) AS gaps
         FROM ( SELECT token_ledger.user_id,
                  token_ledger.tokens,
                  token_ledger.balance,
                  lag(token_ledger.balance) OVER (PARTITION BY token_ledger.user_id ORDER BY token_ledger.id) AS before
                 FROM public.token_ledger) entries
        GROUP BY entries.user_id) l ON l.user_id = a.user_id;
