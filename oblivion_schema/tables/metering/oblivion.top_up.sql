CREATE OR REPLACE FUNCTION oblivion.top_up(
  INOUT user_id text, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer
)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  PERFORM oblivion.refuse_pages();
  SELECT c.status, c.balance
  INTO status, balance
  FROM oblivion.credit_account(user_id, tokens, key, 'top_up', NULL, NULL) AS c;
END
$$;

COMMENT ON FUNCTION oblivion.top_up(text, integer, text) IS 'Implements public.top_up(), as the owner.';
