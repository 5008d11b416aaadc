CREATE OR REPLACE FUNCTION public.settle_calls(max_calls integer DEFAULT 1000)
RETURNS TABLE (session_id uuid, status text, charged integer, shortfall integer)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.session_id, a.status, a.charged, a.shortfall
  FROM oblivion.sweep_calls('settle', max_calls) AS a;
END;

COMMENT ON FUNCTION public.settle_calls(integer) IS
  'Bills metered calls that have ended but could not be billed then. max_calls: 1000 by default. Several sessions may '
  'run it at once. Returns one row for each call. session_id: the call. status: ok, short or not_billed; unsettled '
  '(billing failed again: oblivion.billing_incidents has the error). charged, shortfall: tokens. Errors: 22023 '
  'max_calls is not above zero.';
