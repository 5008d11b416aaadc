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
