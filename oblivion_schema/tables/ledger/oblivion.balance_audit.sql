-- rebuild_ledger() does not touch the rows that are there. It appends a correction, which brings their sum to the
-- balance: rows before an account's last correction are no gaps.
-- Grouped by user_id alone, so that a query for some accounts reads the index of their rows.
CREATE VIEW oblivion.balance_audit WITH (security_invoker = true) AS
SELECT
  user_id,
  sum(balance)::integer AS balance,
  sum(ledger)::bigint AS ledger,
  (sum(balance) - sum(ledger))::bigint AS drift,
  sum(gaps)::bigint AS gaps
FROM (
  SELECT user_id, tokens_remaining AS balance, 0 AS ledger, 0 AS gaps
  FROM public.user_accounts
  UNION ALL
  SELECT
    user_id,
    0 AS balance,
    sum(tokens) AS ledger,
    CASE
      WHEN max(id) FILTER (WHERE is_gap) > coalesce(max(id) FILTER (WHERE kind = 'correction'), min(id) - 1)
        THEN count(*) FILTER (WHERE is_gap)
      ELSE 0
    END AS gaps
  FROM (
    SELECT
      user_id, id, kind, tokens,
      balance - tokens::bigint <> coalesce(lag(balance) OVER (PARTITION BY user_id ORDER BY id), 0) AS is_gap
    FROM (
      SELECT user_id, id, kind, tokens, balance FROM public.token_ledger
      UNION ALL
      SELECT user_id, id, 'opening', tokens, balance FROM oblivion.missing_openings
    ) AS written
  ) AS entries
  GROUP BY user_id
) AS sides
GROUP BY user_id;

COMMENT ON VIEW oblivion.balance_audit IS
  'The balance of each account beside the sum of its ledger rows; a row with drift or gaps is an error.';
