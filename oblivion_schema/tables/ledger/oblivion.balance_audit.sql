CREATE VIEW oblivion.balance_audit WITH (security_invoker = true) AS
SELECT
  coalesce(a.user_id, l.user_id) AS user_id,
  coalesce(a.tokens_remaining, 0) AS balance,
  coalesce(l.tokens, 0) AS ledger,
  coalesce(a.tokens_remaining, 0) - coalesce(l.tokens, 0) AS drift,
  coalesce(l.gaps, 0) AS gaps
FROM public.user_accounts AS a
FULL JOIN (
  SELECT user_id, sum(tokens) AS tokens, count(*) FILTER (WHERE balance <> coalesce(before, 0) + tokens) AS gaps
  FROM (
    SELECT user_id, tokens, balance, lag(balance) OVER (PARTITION BY user_id ORDER BY id) AS before
    FROM (
      SELECT user_id, id, tokens, balance FROM public.token_ledger
      UNION ALL
      SELECT user_id, id, tokens, balance FROM oblivion.missing_openings
    ) AS written
  ) AS entries
  GROUP BY user_id
) AS l ON l.user_id = a.user_id;

COMMENT ON VIEW oblivion.balance_audit IS
  'The balance of each account beside the sum of its ledger rows; a row with drift or gaps is an error.';
