CREATE OR REPLACE FUNCTION public.reap_stale_calls(
  not_seen_for interval DEFAULT '5 minutes',
  max_calls integer DEFAULT 1000,
  pages_not_seen_for interval DEFAULT '12 hours'
)
RETURNS TABLE (session_id uuid, status text, charged integer, shortfall integer, end_time timestamptz)
LANGUAGE sql
SET search_path = ''
BEGIN ATOMIC
  SELECT a.*
  FROM oblivion.sweep_calls('reap', max_calls, not_seen_for, pages_not_seen_for) AS a;
END;

COMMENT ON FUNCTION public.reap_stale_calls(interval, integer, interval) IS
  'Ends metered calls that were not seen for a while, and bills each up to when it was last seen. A late tick_call() '
  'reopens such a call. not_seen_for: an interval, 5 minutes by default. max_calls: 1000 by default. '
  'pages_not_seen_for: the interval for a call that a page inserted, which is seen by the heartbeats that burn_calls() '
  'reads, 12 hours by default; if its page ends it later, it is billed until then. Several sessions may run it at '
  'once. Returns one row for each call. session_id: the call. status: ok, short or not_billed; '
  'unsettled (billing failed: oblivion.billing_incidents has the error). charged, shortfall: tokens. end_time: when '
  'the call was last seen, NULL if it could not be ended. Errors: 22023 max_calls is not above zero, or an interval is '
  'NULL or negative.';
