CREATE FUNCTION public.settle_calls(max_calls integer DEFAULT 1000)
RETURNS TABLE (session_id uuid, status text, charged integer, shortfall integer)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.settle_calls(max_calls) AS a;
END;

COMMENT ON FUNCTION public.settle_calls(integer) IS
  'Bills metered calls that have ended and could not be billed then, at most so many. Returns a row for each: status '
  '(ok, short, not_billed; unsettled: oblivion.billing_incidents tells why), charged and shortfall (tokens). Safe to '
  'run by several at once. Errors: 22023 a negative argument.';
