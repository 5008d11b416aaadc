-- An account that was there before the ledger has no row, or its first row is of a later change; the balance before
-- that change is what the ledger opens with. 0 comes before all identifiers that the column generates.
CREATE VIEW oblivion.missing_openings WITH (security_invoker = true) AS
SELECT
  coalesce(a.user_id, f.user_id) AS user_id,
  0::bigint AS id,
  (SELECT noted_at FROM oblivion.backfills WHERE name = 'ledger') AS created_at,
  coalesce(f.balance - f.tokens, a.tokens_remaining) AS tokens,
  coalesce(f.balance - f.tokens, a.tokens_remaining) AS balance
FROM public.user_accounts AS a
FULL JOIN (
  SELECT DISTINCT ON (user_id) user_id, kind, tokens, balance
  FROM public.token_ledger
  ORDER BY user_id, id
) AS f ON f.user_id = a.user_id
WHERE EXISTS (SELECT FROM oblivion.backfills WHERE name = 'ledger')
  AND coalesce(f.kind NOT IN ('opening', 'carried'), true);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.missing_openings FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.missing_openings FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

COMMENT ON VIEW oblivion.missing_openings IS
  'The opening rows that token_ledger still lacks after an upgrade; empty once backfill() is done.';
COMMENT ON COLUMN oblivion.missing_openings.user_id IS 'The account; it may have been deleted since.';
COMMENT ON COLUMN oblivion.missing_openings.id IS 'Identifier of the row: 0, before those of all later rows.';
COMMENT ON COLUMN oblivion.missing_openings.created_at IS 'When the upgrade began that made the ledger.';
COMMENT ON COLUMN oblivion.missing_openings.tokens IS 'Balance of the account at that time.';
COMMENT ON COLUMN oblivion.missing_openings.balance IS 'The same.';
