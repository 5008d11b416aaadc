-- How the calls of pages were billed in the last `days`, in one row. Nothing is written, and no row is locked.
WITH span AS MATERIALIZED (
  -- The ledger knows what was taken since it was opened; a carried row hides what came before it.
  SELECT since, ledger_since, greatest(since, ledger_since) AS compared_since
  FROM (
    SELECT
      coalesce(CAST(:since AS timestamptz), now() - make_interval(days => :days)) AS since,
      (
        SELECT greatest(
          least(min(created_at), (SELECT noted_at FROM oblivion.backfills WHERE name = 'ledger')),
          max(created_at) FILTER (WHERE kind = 'carried')
        )
        FROM public.token_ledger
      ) AS ledger_since
  ) AS known
),
rates AS (
  -- The oldest rate holds for older calls, too.
  SELECT
    mode,
    used_turn,
    tokens_per_minute,
    CASE WHEN lag(mode) OVER by_date IS NULL THEN '-infinity' ELSE effective_from END AS begins,
    lead(effective_from, 1, 'infinity') OVER by_date AS ends
  FROM public.token_rates
  WINDOW by_date AS (PARTITION BY mode, used_turn ORDER BY effective_from)
),
priced AS (
  SELECT
    c.id,
    c.user_id,
    -- A wrong clock may end a call in the future.
    CASE WHEN isfinite(c.end_time) THEN (least(c.end_time, now()) AT TIME ZONE 'UTC')::date END AS day,
    c.end_time >= s.compared_since AS is_compared,
    CASE
      WHEN isfinite(c.start_time) AND isfinite(c.end_time)
      -- Not the epoch of a difference: that of two times is out of range for no call.
      THEN ceil(greatest(0, date_part('epoch', c.end_time) - date_part('epoch', c.start_time)) / 60)
        * r.tokens_per_minute
    END AS price
  FROM span AS s
  JOIN public.call_sessions AS c ON c.end_time >= s.since
  JOIN public.user_accounts AS a ON a.user_id = c.user_id
  LEFT JOIN rates AS r
    ON r.mode = CASE c.mode WHEN 'voice-only' THEN 'voice' ELSE c.mode END
    AND r.used_turn = c.used_turn
    AND c.start_time >= r.begins
    AND c.start_time < r.ends
  WHERE NOT starts_with(c.user_id, 'anonymous_')
    AND NOT EXISTS (SELECT FROM oblivion.call_meters AS m WHERE m.session_id = c.id)
),
calls AS MATERIALIZED (
  SELECT
    p.user_id,
    p.day,
    p.is_compared,
    CASE WHEN p.price <= 999999 THEN p.price::integer ELSE 0 END AS due,
    coalesce(p.price > 999999, false) AS is_impossible,
    coalesce(u.bills, 0) AS bills,
    coalesce(u.tokens, 0) AS logged
  FROM priced AS p
  LEFT JOIN (
    SELECT session_id, count(*) AS bills, sum(tokens_used) AS tokens
    FROM public.token_usage
    GROUP BY session_id
  ) AS u ON u.session_id = p.id::text
),
direct AS MATERIALIZED (
  SELECT l.user_id, l.id, l.created_at, l.tokens, l.balance, l.tokens > 0 AND l.role IN ('anon', 'authenticated') AS is_raise
  FROM span AS s
  JOIN public.token_ledger AS l ON l.kind = 'direct' AND l.created_at >= s.since
),
-- A page that bills a call writes what it read before, less the cost. If other calls were billed meanwhile, that raises
-- the balance: it puts back what they took.
raises AS MATERIALIZED (
  SELECT
    d.user_id,
    d.created_at,
    d.tokens,
    EXISTS (
      SELECT
      FROM public.token_usage AS u
      WHERE u.user_id = d.user_id
        AND u."timestamp" BETWEEN d.created_at - interval '1 minute' AND d.created_at + interval '1 minute'
        AND u.tokens_used > 0
        AND d.balance + u.tokens_used = ANY (d.read_before)
    ) AS puts_back
  FROM (
    SELECT
      *,
      array_agg(balance - tokens) OVER (PARTITION BY user_id ORDER BY id ROWS BETWEEN 20 PRECEDING AND CURRENT ROW)
        AS read_before
    FROM direct
    WHERE user_id IN (SELECT user_id FROM direct WHERE is_raise)
  ) AS d
  WHERE d.is_raise
),
raised AS (
  SELECT user_id, count(*) AS times, sum(tokens) AS tokens
  FROM raises
  WHERE NOT puts_back
  GROUP BY user_id
),
accounts AS (
  SELECT
    c.user_id,
    c.due,
    coalesce(t.tokens, 0) - coalesce(b.tokens, 0) AS taken,
    greatest(0, c.due - coalesce(t.tokens, 0) + coalesce(b.tokens, 0)) AS lost,
    a.tokens_remaining = 0 OR coalesce(t.came_to_zero, false) AS came_to_zero
  FROM (SELECT user_id, sum(due) AS due FROM calls WHERE is_compared GROUP BY user_id) AS c
  JOIN public.user_accounts AS a ON a.user_id = c.user_id
  LEFT JOIN (
    SELECT d.user_id, -sum(d.tokens) AS tokens, bool_or(d.balance = 0) AS came_to_zero
    FROM span AS s
    JOIN direct AS d ON d.created_at >= s.compared_since AND d.tokens < 0
    GROUP BY d.user_id
  ) AS t ON t.user_id = c.user_id
  LEFT JOIN (
    SELECT r.user_id, sum(r.tokens) AS tokens
    FROM span AS s
    JOIN raises AS r ON r.created_at >= s.compared_since AND r.puts_back
    GROUP BY r.user_id
  ) AS b ON b.user_id = c.user_id
),
-- What is taken at midnight pays for a call of the day before: of a day no loss can be told, of an account it can.
by_day AS (
  SELECT day, sum(due) AS due, sum(logged) AS logged, sum(taken) AS taken
  FROM (
    SELECT day, due, logged, 0 AS taken FROM calls WHERE day IS NOT NULL
    UNION ALL
    SELECT (d.created_at AT TIME ZONE 'UTC')::date, 0, 0, -d.tokens
    FROM direct AS d
    WHERE d.tokens < 0 AND d.user_id IN (SELECT user_id FROM calls)
    UNION ALL
    SELECT (created_at AT TIME ZONE 'UTC')::date, 0, 0, -tokens
    FROM raises
    WHERE puts_back AND user_id IN (SELECT user_id FROM calls)
  ) AS amounts
  GROUP BY day
)
SELECT
  oblivion.page_billing() AS pages,
  s.since,
  now() AS until,
  s.ledger_since,
  s.compared_since,
  c.*,
  a.*,
  m.*,
  r.*,
  d.*
FROM span AS s
CROSS JOIN (
  SELECT
    count(*) AS calls,
    coalesce(sum(due), 0) AS tokens_due,
    coalesce(sum(logged), 0) AS tokens_logged,
    count(*) FILTER (WHERE bills > 1) AS calls_billed_twice,
    count(*) FILTER (WHERE bills = 0 AND due > 0) AS calls_never_billed,
    count(*) FILTER (WHERE is_impossible) AS calls_of_impossible_length,
    count(*) FILTER (WHERE is_compared) AS compared_calls
  FROM calls
) AS c
CROSS JOIN (
  SELECT
    coalesce(sum(due), 0) AS compared_tokens_due,
    coalesce(sum(taken), 0) AS tokens_taken,
    coalesce(sum(lost), 0) AS tokens_lost,
    coalesce(sum(lost) FILTER (WHERE came_to_zero), 0) AS tokens_lost_at_zero,
    (array_agg(user_id ORDER BY lost DESC, user_id) FILTER (WHERE lost > 0))[1 : 10] AS first_losers,
    (array_agg(due ORDER BY lost DESC, user_id) FILTER (WHERE lost > 0))[1 : 10] AS first_due,
    (array_agg(taken ORDER BY lost DESC, user_id) FILTER (WHERE lost > 0))[1 : 10] AS first_taken,
    (array_agg(lost ORDER BY lost DESC, user_id) FILTER (WHERE lost > 0))[1 : 10] AS first_lost
  FROM accounts
) AS a
CROSS JOIN (
  SELECT
    count(*) AS metered_calls,
    coalesce(sum(m.cost), 0) AS metered_tokens_due,
    coalesce(sum(m.cost - m.shortfall), 0) AS metered_tokens_charged
  FROM span AS s
  JOIN oblivion.call_meters AS m ON m.by_page AND m.seen_at >= s.since
) AS m
CROSS JOIN (
  SELECT
    count(*) AS accounts_raised,
    coalesce(sum(times), 0) AS raises,
    coalesce(sum(tokens), 0) AS tokens_raised,
    (array_agg(user_id ORDER BY tokens DESC, user_id))[1 : 5] AS first_accounts,
    (array_agg(times ORDER BY tokens DESC, user_id))[1 : 5] AS first_raises,
    (array_agg(tokens ORDER BY tokens DESC, user_id))[1 : 5] AS first_tokens
  FROM raised
) AS r
CROSS JOIN (
  SELECT
    array_agg(day ORDER BY day) AS days_ended,
    array_agg(due ORDER BY day) AS days_due,
    array_agg(logged ORDER BY day) AS days_logged,
    array_agg(taken ORDER BY day) AS days_taken
  FROM by_day
) AS d
