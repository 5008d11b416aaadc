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
  'Ledger rows whose balance is not the previous balance plus tokens; not 0 if rows are missing.';
