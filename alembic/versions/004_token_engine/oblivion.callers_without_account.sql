CREATE VIEW oblivion.callers_without_account WITH (security_invoker = true) AS
SELECT
  c.user_id,
  count(*) AS calls,
  count(*) FILTER (WHERE c.end_time IS NULL) AS open_calls,
  coalesce(
    sum(ceil(greatest(0, date_part('epoch', c.end_time - c.start_time)) / 60))
    FILTER (WHERE isfinite(c.start_time) AND isfinite(c.end_time)),
    0
  )::bigint AS minutes,
  max(c.start_time) AS last_call
FROM public.call_sessions AS c
WHERE c.user_id IS NOT NULL
  AND NOT starts_with(c.user_id, 'anonymous_')
  AND NOT EXISTS (SELECT FROM public.user_accounts AS a WHERE a.user_id = c.user_id)
GROUP BY c.user_id;

COMMENT ON VIEW oblivion.callers_without_account IS
  'Users who call, and have no account: nobody pays for their calls. A deleted account leaves its calls here.';

COMMENT ON COLUMN oblivion.callers_without_account.user_id IS 'The user whom the calls name; no account has that id.';
COMMENT ON COLUMN oblivion.callers_without_account.calls IS 'Calls of the user, none of which is billed.';
COMMENT ON COLUMN oblivion.callers_without_account.open_calls IS 'Those that have not ended.';
COMMENT ON COLUMN oblivion.callers_without_account.minutes IS
  'Started minutes of those that ended, by their own times.';
COMMENT ON COLUMN oblivion.callers_without_account.last_call IS 'When the last one began.';
