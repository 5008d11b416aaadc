CREATE OR REPLACE FUNCTION public.burn_calls(max_calls integer DEFAULT 1000)
RETURNS TABLE (session_id uuid, status text, charged integer, shortfall integer)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.session_id, a.status, a.charged, a.shortfall
  FROM oblivion.sweep_calls('burn', max_calls) AS a;
END;

COMMENT ON FUNCTION public.burn_calls(integer) IS
  'Bills the minutes of metered calls of pages, up to the last heartbeat of the room, or of the host who makes the '
  'call. Pages send no tick, so a balance stands still without it until the call ends; what a call costs does not '
  'change. max_calls: 1000 by default. Several sessions may run it at once. Returns one row for each call that had a '
  'heartbeat since it was last billed, and none if pages are trusted. session_id: the call. status: ok, short or '
  'not_billed; unsettled (billing failed: oblivion.billing_incidents has the error). charged, shortfall: tokens. '
  'Errors: 22023 max_calls is not above zero.';
