CREATE FUNCTION oblivion.start_call(
  user_id text,
  room_id text,
  mode text,
  used_turn boolean,
  client_key text,
  caller text
)
RETURNS oblivion.live_calls
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  called_mode CONSTANT pg_catalog.text := CASE mode WHEN 'voice' THEN 'voice-only' ELSE mode END;
  turn CONSTANT boolean := coalesce(used_turn, false);
  quote pg_catalog.record;
  known pg_catalog.record;
  clock timestamp with time zone;
  state oblivion.live_calls;
BEGIN
  quote := oblivion.call_quote(user_id, mode, turn, caller);
  IF NOT (oblivion.open_access() OR oblivion.may_act_for(user_id, caller)) THEN
    RAISE insufficient_privilege
      USING MESSAGE = 'A call cannot be started for another user',
        HINT = 'Give the signed-in user as user_id, or NULL for a visitor';
  END IF;
  IF coalesce(room_id, '') = '' THEN
    RAISE invalid_parameter_value USING MESSAGE = 'A call needs a room', HINT = 'Give room_id';
  END IF;
  PERFORM oblivion.check_key(client_key, 'client_key');
  state.charged := 0;
  state.shortfall := 0;
  state.minutes_billed := 0;
  state.credit_cost := 0;

  FOR attempt IN 1..5 LOOP
    SELECT c.id, c.room_id, c.mode, c.end_time, m.cost
    INTO known
    FROM oblivion.call_meters AS m
    JOIN public.call_sessions AS c ON c.id = m.session_id
    -- Not IS NOT DISTINCT FROM: it would scan the whole index of keys.
    WHERE m.client_key = start_call.client_key
      AND (m.user_id = start_call.user_id OR m.user_id IS NULL AND start_call.user_id IS NULL);
    IF FOUND THEN
      IF (known.room_id, known.mode) <> (start_call.room_id, called_mode) THEN
        RAISE unique_violation
          USING MESSAGE = 'client_key is known from another call of this user, in another room or mode',
            HINT = 'Give each call a key of its own, such as a random UUID';
      END IF;
      state.session_id := known.id;
      state.credit_cost := known.cost;
      state.minutes_billed := NULL;
      EXIT;
    END IF;
    BEGIN
      clock := clock_timestamp();
      INSERT INTO public.call_sessions AS c (room_id, start_time, mode, used_turn, credit_cost, user_id)
      VALUES (start_call.room_id, clock, called_mode, turn, 0, start_call.user_id)
      RETURNING c.id INTO state.session_id;
      INSERT INTO oblivion.call_meters (
        session_id, user_id, client_key, mode, started_at, seen_at, used_turn, tokens_per_minute, is_plain,
        direct_rate, direct_rate_from, turn_rate, turn_rate_from
      )
      SELECT
        state.session_id,
        start_call.user_id,
        start_call.client_key,
        direct.mode,
        clock,
        clock,
        turn,
        quote.tokens_per_minute,
        quote.status <> 'not_billed',
        direct.tokens_per_minute,
        direct.effective_from,
        over_turn.tokens_per_minute,
        over_turn.effective_from
      FROM oblivion.rate_card(called_mode, false) AS direct
      CROSS JOIN oblivion.rate_card(called_mode, true) AS over_turn;
      EXIT;
    EXCEPTION
      WHEN unique_violation THEN
        -- Another session has started this call at the same time: the next attempt finds it.
        IF client_key IS NULL OR attempt = 5 THEN
          RAISE;
        END IF;
    END;
  END LOOP;
  state.status := CASE WHEN known.end_time IS NOT NULL THEN 'ended' ELSE quote.status END;
  state.balance := quote.balance;
  state.minutes_left := quote.minutes_left;
  RETURN state;
END
$$;

COMMENT ON FUNCTION oblivion.start_call(text, text, text, boolean, text, text) IS
  'Implements public.start_call(), as the owner.';
