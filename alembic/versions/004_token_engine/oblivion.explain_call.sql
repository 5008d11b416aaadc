CREATE FUNCTION oblivion.explain_call(session_id uuid, caller text)
RETURNS TABLE (
  segment integer,
  mode text,
  used_turn boolean,
  first_minute integer,
  minutes integer,
  tokens_per_minute integer,
  rate_from timestamptz,
  due integer,
  charged integer,
  shortfall integer
)
LANGUAGE sql
STABLE SECURITY DEFINER
SET search_path = ''
BEGIN ATOMIC
  SELECT
    s.number,
    m.mode,
    s.used_turn,
    s.first_minute + 1,
    -- Only minutes that were billed; at a rate of zero all minutes count as billed.
    CASE WHEN s.tokens_per_minute > 0 THEN p.due / s.tokens_per_minute ELSE greatest(0, s.minutes) END,
    s.tokens_per_minute,
    s.rate_from,
    p.due,
    p.due - s.shortfall,
    s.shortfall
  FROM oblivion.call_meters AS m
  JOIN public.call_sessions AS c ON c.id = m.session_id
  CROSS JOIN LATERAL (
    SELECT number, used_turn, tokens_per_minute, rate_from, first_minute, minutes, due_before, due_after, shortfall
    FROM oblivion.call_segments
    WHERE session_id = m.session_id
    UNION ALL
    SELECT
      m.segment,
      m.used_turn,
      m.tokens_per_minute,
      CASE WHEN m.used_turn THEN m.turn_rate_from ELSE m.direct_rate_from END,
      m.first_minute,
      CASE
        WHEN isfinite(m.started_at) THEN
          ceil(
            date_part('epoch', coalesce(CASE WHEN NOT m.by_page THEN c.end_time END, m.seen_at) - m.started_at) / 60
          )::integer - m.first_minute
        ELSE 0
      END,
      m.due_before,
      m.cost::bigint,
      m.shortfall
  ) AS s
  CROSS JOIN LATERAL (
    SELECT greatest(0, least(s.due_after, m.cost) - s.due_before)::integer AS due
  ) AS p
  WHERE m.session_id = explain_call.session_id AND oblivion.may_act_for(m.user_id, explain_call.caller)
  ORDER BY s.number;
END;

COMMENT ON FUNCTION oblivion.explain_call(uuid, text) IS 'Implements public.explain_call(), as the owner.';
