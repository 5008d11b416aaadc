-- Rows to look at: 45 days of calls, made by the token engine and by pages. For a new database that nobody uses:
--   oblivion-schema -x url=postgresql://... psql -f docs/demo.sql
-- Each call is started, billed and ended now, and then moved to its day. Run it as the owner, with pages trusted.
\set ON_ERROR_STOP on
\set QUIET on
BEGIN;
DO $$
DECLARE
  names text[] := ARRAY[
    'ada', 'ben', 'chen', 'dana', 'emil', 'fatima', 'goran', 'hana', 'igor', 'jun', 'kofi', 'lena', 'marek', 'nadia',
    'omar', 'priya', 'quentin', 'rosa', 'sven', 'tariq', 'uma', 'vera', 'wanjiru', 'yusuf'
  ];
  back interval;
  busy integer;
  who text;
  is_video boolean;
  over_turn boolean;
  length interval;
  call uuid;
  price integer;
  known integer;
  chance float;
BEGIN
  PERFORM setseed(0.42);
  INSERT INTO user_accounts (user_id, tokens_remaining, subscription_tier)
  SELECT name, 300 + 1200 * (number % 3), (ARRAY['free', 'pro', 'enterprise'])[1 + number % 3]
  FROM unnest(names) WITH ORDINALITY AS n (name, number);
  UPDATE token_ledger SET created_at = now() - interval '60 days';

  FOR day IN REVERSE 44..0 LOOP
    -- Fewer calls at the weekend, more each week.
    busy := (24 + 0.7 * (45 - day) + 10 * random())
      * CASE WHEN extract(isodow FROM now() - day * interval '1 day') > 5 THEN 0.4 ELSE 1 END;
    FOR number IN 1..busy LOOP
      -- Today's calls began since midnight.
      back := CASE
        WHEN day = 0 THEN random() * (now() - date_trunc('day', now(), 'UTC'))
        ELSE now() - date_trunc('day', now(), 'UTC') + (day - random()) * interval '1 day'
      END;
      who := names[1 + floor(array_length(names, 1) * random() ^ 1.6)];
      is_video := random() < 0.7;
      over_turn := random() < CASE WHEN is_video THEN 0.15 ELSE 0.25 END;
      length := interval '20 seconds' + random() ^ 2 * interval '35 minutes';
      IF number % 3 > 0 THEN
        SELECT session_id INTO call
        FROM start_call(who, 'lobby', CASE WHEN is_video THEN 'video' ELSE 'voice-only' END, over_turn);
        UPDATE call_sessions SET start_time = start_time - length WHERE id = call;
        UPDATE oblivion.call_meters SET started_at = now() - length, is_plain = true WHERE session_id = call;
        PERFORM end_call(call);
        UPDATE call_sessions
        SET start_time = start_time - back, end_time = end_time - back, created_at = created_at - back
        WHERE id = call;
        UPDATE oblivion.call_meters SET started_at = started_at - back, seen_at = seen_at - back WHERE session_id = call;
        UPDATE token_usage SET "timestamp" = "timestamp" - back WHERE session_id = call::text;
        UPDATE token_ledger SET created_at = created_at - back WHERE session_id = call;
      ELSE
        -- A page reads the balance, writes the difference, logs the usage: each of these may be lost.
        call := gen_random_uuid();
        price := ceil(extract(epoch FROM length) / 60)
          * CASE WHEN is_video THEN CASE WHEN over_turn THEN 6 ELSE 2 END ELSE CASE WHEN over_turn THEN 2 ELSE 1 END END;
        chance := random();
        PERFORM set_config('role', 'anon', true);
        INSERT INTO call_sessions (id, room_id, user_id, mode, used_turn, start_time, end_time, credit_cost)
        VALUES (
          call, 'lobby', who, CASE WHEN is_video THEN 'video' ELSE 'voice-only' END, over_turn,
          now() - back - length, now() - back, price
        );
        SELECT tokens_remaining INTO known FROM user_accounts WHERE user_id = who;
        IF chance > 0.12 AND known >= price THEN
          UPDATE user_accounts SET tokens_remaining = known - price WHERE user_id = who;
        END IF;
        IF chance > 0.03 THEN
          INSERT INTO token_usage (user_id, session_id, tokens_used, "timestamp", mode, used_turn, duration_seconds)
          SELECT
            who, call, price, now() - back, CASE WHEN is_video THEN 'video' ELSE 'voice' END, over_turn,
            extract(epoch FROM length)
          FROM generate_series(1, CASE WHEN chance > 0.97 THEN 2 ELSE 1 END);
        END IF;
        PERFORM set_config('role', 'none', true);
        UPDATE token_ledger SET created_at = now() - back WHERE role = 'anon' AND created_at > now();
      END IF;
      -- Most users top up when few tokens are left.
      IF who < 't' AND random() < 0.8 AND (SELECT tokens_remaining < 120 FROM user_accounts WHERE user_id = who) THEN
        PERFORM top_up(who, 500, format('order %s-%s', day, number));
        UPDATE token_ledger SET created_at = now() - back WHERE key = format('order %s-%s', day, number);
      END IF;
    END LOOP;
  END LOOP;

  PERFORM refund_call(session_id, 2, 'ticket 17')
  FROM oblivion.call_meters WHERE cost - shortfall > 4 ORDER BY seen_at DESC LIMIT 1;
  PERFORM start_call(name, 'lobby', 'video') FROM unnest(ARRAY['ada', 'jun', 'rosa']) AS name;
  INSERT INTO call_sessions (room_id, user_id, mode, start_time, end_time)
  SELECT 'lobby', 'guest ' || n % 2, 'video', now() - n * interval '20 hours', now() - n * interval '20 hours' + interval '9 minutes'
  FROM generate_series(1, 7) AS n;
  INSERT INTO oblivion.billing_incidents (session_id, user_id, action, error_code, message, attempts, first_at)
  SELECT session_id, user_id, 'settle', '22003', 'The call would cost 1051202 tokens, more than credit_cost can hold',
    3, now() - interval '5 hours'
  FROM oblivion.call_meters WHERE user_id = 'ada' AND settled LIMIT 1;
END
$$;
COMMIT;
