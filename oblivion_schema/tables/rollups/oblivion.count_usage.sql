-- A function for the same reason as missing_usage().
CREATE OR REPLACE FUNCTION oblivion.count_usage(account text)
RETURNS TABLE (
  sessions bigint,
  tokens bigint,
  last_usage timestamptz
)
LANGUAGE plpgsql
STABLE PARALLEL SAFE ROWS 1 COST 1
SET search_path = ''
AS $$
BEGIN
  RETURN QUERY
  SELECT count(*), coalesce(sum(u.tokens_used), 0), max(u."timestamp")
  FROM public.token_usage AS u
  WHERE u.user_id = account;
END
$$;

COMMENT ON FUNCTION oblivion.count_usage(text) IS
  'Usage of an account by its rows: user_token_summary asks for it until the roll-up is filled.';
