-- The ledger has what a page wrote to a balance. A write that had no effect is not there. It was a moment ago, so it is
-- among the last rows.
CREATE OR REPLACE FUNCTION oblivion.page_took(usage public.token_usage, since timestamptz)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = ''
RETURN EXISTS (
  SELECT
  FROM (
    SELECT e.role, e.created_at, e.tokens, e.balance
    FROM public.token_ledger AS e
    WHERE e.user_id = (usage).user_id
    ORDER BY e.id DESC
    LIMIT 50
  ) AS l
  WHERE l.role IS NOT NULL AND l.created_at >= since
    AND (l.tokens = -(usage).tokens_used OR l.tokens < 0 AND l.balance = 0)
);

COMMENT ON FUNCTION oblivion.page_took(public.token_usage, timestamptz) IS
  'Whether a page has taken from the balance, since then, the tokens that it logs.';
