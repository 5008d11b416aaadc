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
