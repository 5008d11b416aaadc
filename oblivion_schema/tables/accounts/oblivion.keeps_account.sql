-- A policy sees only the new row. This looks at the row that is there: a user changes neither balance nor tier, even if
-- somebody granted UPDATE on all columns. It runs with the user's rights, who sees the own row.
-- VOLATILE, so that it sees a charge that was committed since the statement began.
CREATE OR REPLACE FUNCTION oblivion.keeps_account(
  account text, tokens integer, tier text, opened timestamptz
)
RETURNS boolean
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  RETURN EXISTS (
    SELECT
    FROM public.user_accounts AS a
    WHERE a.user_id = account AND (a.subscription_tier, a.created_at) = (tier, opened)
      AND (tokens IS NULL OR a.tokens_remaining = tokens)
  );
END
$$;

COMMENT ON FUNCTION oblivion.keeps_account(text, integer, text, timestamptz) IS
  'Whether an account has this balance (any if tokens is NULL), this tier and this created_at.';
