-- The common end, as tick_call(). It locks the call before its meter, as everybody does who writes both.
-- A call of a page has the rate that its end says, as in final_meter(). Its end may be there already: bill_page_call().
CREATE OR REPLACE FUNCTION oblivion.end_call(session_id uuid, caller text)
RETURNS oblivion.live_calls
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
SET lock_timeout = '300ms'
AS $$
DECLARE
  clock CONSTANT timestamp with time zone := clock_timestamp();
  setting pg_catalog.text;
  state oblivion.live_calls;
BEGIN
  setting := set_config('oblivion.reason', 'charge ' || session_id, true);
  WITH call AS (
    SELECT c.id, c.start_time, c.used_turn
    FROM public.call_sessions AS c
    WHERE c.id = end_call.session_id
    FOR NO KEY UPDATE
  ),
  meter AS (
    UPDATE oblivion.call_meters AS m
    SET
      seen_at = greatest(clock, m.seen_at),
      used_turn = CASE WHEN m.by_page THEN c.used_turn ELSE m.used_turn END,
      tokens_per_minute = CASE
        WHEN NOT m.by_page THEN m.tokens_per_minute
        WHEN c.used_turn THEN m.turn_rate
        ELSE m.direct_rate
      END,
      cost_before = m.cost,
      cost = m.due_before
        + CASE WHEN NOT m.by_page THEN m.tokens_per_minute WHEN c.used_turn THEN m.turn_rate ELSE m.direct_rate END
        * (ceil(date_part('epoch', greatest(clock, m.seen_at) - m.started_at) / 60)::integer - m.first_minute),
      usage_id = gen_random_uuid(),
      is_plain = false,
      settled = true
    FROM call AS c
    WHERE m.session_id = c.id AND m.is_plain
      AND (NOT m.by_page OR m.seen_at > clock - interval '12 hours')
      AND (oblivion.open_access() OR oblivion.may_act_for(m.user_id, caller))
    RETURNING
      m.session_id,
      m.user_id,
      m.mode,
      m.used_turn,
      m.usage_id,
      m.seen_at,
      CASE WHEN m.by_page THEN m.seen_at + oblivion.page_lag(m, c.start_time) ELSE m.seen_at END AS end_time,
      m.cost,
      m.cost - m.cost_before AS due,
      m.cost - m.due_before AS used,
      m.tokens_per_minute,
      greatest(0, ceil(date_part('epoch', m.seen_at - m.started_at) / 60))::integer AS minutes,
      floor(date_part('epoch', m.seen_at - m.started_at)) - m.first_second AS seconds
  ),
  account AS (
    UPDATE public.user_accounts AS a
    SET tokens_remaining = a.tokens_remaining - m.due
    FROM meter AS m
    WHERE a.user_id = m.user_id AND a.tokens_remaining >= m.due AND m.due > 0 AND m.cost <= 999999
    RETURNING a.tokens_remaining
  ),
  used AS (
    INSERT INTO public.token_usage (id, user_id, session_id, tokens_used, mode, used_turn, duration_seconds, "timestamp")
    SELECT m.usage_id, m.user_id, m.session_id, m.used, m.mode, m.used_turn, m.seconds, m.seen_at
    FROM meter AS m
    WHERE m.used > 0 OR m.tokens_per_minute = 0 AND m.seconds > 0
  )
  UPDATE public.call_sessions AS c
  SET end_time = m.end_time, credit_cost = m.cost
  FROM meter AS m
  LEFT JOIN account AS a ON true
  WHERE c.id = m.session_id AND (m.due = 0 OR a.tokens_remaining IS NOT NULL)
  RETURNING
    m.session_id, 'ok', m.due, 0, a.tokens_remaining, m.minutes, a.tokens_remaining / nullif(m.tokens_per_minute, 0),
    m.cost::numeric
  INTO state;
  setting := set_config('oblivion.reason', '', true);
  IF state.balance IS NULL THEN
    -- Nothing was due. Or else the handler undoes what was done.
    SELECT a.tokens_remaining, a.tokens_remaining / nullif(m.tokens_per_minute, 0)
    INTO STRICT state.balance, state.minutes_left
    FROM oblivion.call_meters AS m
    JOIN public.user_accounts AS a ON a.user_id = m.user_id
    WHERE m.session_id = state.session_id;
  END IF;
  RETURN state;
EXCEPTION
  WHEN OTHERS THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.end_call(uuid, text) IS
  'Ends and bills a call that goes on, and that its balance covers, by one statement; NULL in any other case.';
