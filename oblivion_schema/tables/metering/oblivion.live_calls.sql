-- Its columns are also the type of what start_call(), tick_call(), set_call_turn() and end_call() return.
CREATE VIEW oblivion.live_calls WITH (security_invoker = true) AS
SELECT
  m.session_id,
  CASE
    WHEN m.has_incident THEN 'unsettled'
    WHEN a.user_id IS NULL THEN 'not_billed'
    WHEN s.shortfall > 0 THEN 'short'
    ELSE 'ok'
  END AS status,
  m.cost - s.shortfall AS charged,
  s.shortfall,
  a.tokens_remaining AS balance,
  CASE
    WHEN a.user_id IS NULL THEN 0
    WHEN isfinite(m.started_at) THEN greatest(0, ceil(date_part('epoch', m.seen_at - m.started_at) / 60))::integer
  END AS minutes_billed,
  a.tokens_remaining / nullif(m.tokens_per_minute, 0) AS minutes_left,
  m.cost::numeric(10, 4) AS credit_cost
FROM oblivion.call_meters AS m
JOIN public.call_sessions AS c ON c.id = m.session_id AND c.end_time IS NULL
LEFT JOIN public.user_accounts AS a ON a.user_id = m.user_id AND NOT starts_with(a.user_id, 'anonymous_')
CROSS JOIN LATERAL (
  SELECT m.shortfall + coalesce(sum(p.shortfall), 0)::integer AS shortfall
  FROM oblivion.call_segments AS p
  WHERE p.session_id = m.session_id
) AS s
WHERE NOT m.settled;

COMMENT ON VIEW oblivion.live_calls IS
  'Metered calls that go on, and what each has been billed so far. During a call its tokens are here, not yet in '
  'call_sessions.credit_cost, and those of its current segment not yet in token_usage.';
