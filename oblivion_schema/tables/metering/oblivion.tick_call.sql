-- The common tick: the call goes on, and its balance covers what is due. In any other case it changes nothing and returns
-- NULL; then advance_call() bills the call.
-- The one statement updates only rows that existed before, so PostgreSQL rereads them after a wait for another session.
-- The clock of a call never goes back: the call is billed up to seen_at, and `clock` may be older than a wait.
CREATE OR REPLACE FUNCTION oblivion.tick_call(session_id uuid, caller text)
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
  WITH meter AS (
    UPDATE oblivion.call_meters AS m
    SET
      seen_at = greatest(clock, m.seen_at),
      cost_before = m.cost,
      cost = m.due_before + m.tokens_per_minute
        * (ceil(date_part('epoch', greatest(clock, m.seen_at) - m.started_at) / 60)::integer - m.first_minute)
    WHERE m.session_id = tick_call.session_id AND m.is_plain
      AND (NOT m.by_page OR m.seen_at > clock - interval '12 hours')
      AND (oblivion.open_access() OR oblivion.may_act_for(m.user_id, caller))
    RETURNING
      m.user_id,
      m.cost,
      m.cost - m.cost_before AS due,
      m.tokens_per_minute,
      ceil(date_part('epoch', m.seen_at - m.started_at) / 60)::integer AS minutes
  )
  UPDATE public.user_accounts AS a
  SET tokens_remaining = a.tokens_remaining - m.due
  FROM meter AS m
  WHERE a.user_id = m.user_id AND a.tokens_remaining >= m.due AND m.due > 0 AND m.cost <= 999999
  RETURNING
    tick_call.session_id, 'ok', m.due, 0, a.tokens_remaining, m.minutes, a.tokens_remaining / m.tokens_per_minute,
    m.cost::numeric
  INTO state;
  setting := set_config('oblivion.reason', '', true);
  IF state.status IS NULL THEN
    -- Nothing was due. Or else the handler undoes what was done.
    SELECT
      m.session_id, 'ok', 0, 0, a.tokens_remaining,
      greatest(0, ceil(date_part('epoch', m.seen_at - m.started_at) / 60))::integer,
      a.tokens_remaining / nullif(m.tokens_per_minute, 0),
      m.cost::numeric
    INTO STRICT state
    FROM oblivion.call_meters AS m
    JOIN public.user_accounts AS a ON a.user_id = m.user_id
    WHERE m.session_id = tick_call.session_id AND m.is_plain AND m.cost = m.cost_before
      AND (NOT m.by_page OR m.seen_at > clock - interval '12 hours')
      AND (oblivion.open_access() OR oblivion.may_act_for(m.user_id, caller));
  END IF;
  RETURN state;
EXCEPTION
  WHEN OTHERS THEN
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.tick_call(uuid, text) IS
  'Bills a call that goes on, and that its balance covers, by one statement; NULL in any other case.';
