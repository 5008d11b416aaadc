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

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.balance_audit FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.balance_audit FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

COMMENT ON VIEW oblivion.balance_audit IS
  'The balance of each account beside the sum of its ledger rows; a row with drift or gaps is an error.';
COMMENT ON COLUMN oblivion.balance_audit.user_id IS 'The account.';
COMMENT ON COLUMN oblivion.balance_audit.balance IS 'Balance of the account; 0 if the account was deleted.';
COMMENT ON COLUMN oblivion.balance_audit.ledger IS 'Sum of the account''s ledger rows.';
COMMENT ON COLUMN oblivion.balance_audit.drift IS
  'balance minus ledger; not 0 if a balance was changed past the triggers.';
COMMENT ON COLUMN oblivion.balance_audit.gaps IS
  'Ledger rows whose balance is not the previous balance plus tokens; not 0 if rows are missing, until a correction '
  'comes after all of them.';
