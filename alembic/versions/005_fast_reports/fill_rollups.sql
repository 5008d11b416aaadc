-- A table of up to 1 MB, some thousand rows, is summed at once. A larger one is left to backfill(), for which nobody
-- waits.
DO $$
BEGIN
  IF pg_relation_size('public.token_usage') > 1048576 THEN
    INSERT INTO oblivion.backfills (name) VALUES ('usage');
  ELSE
    INSERT INTO oblivion.daily_usage (usage_date, mode, used_turn, sessions, tokens, seconds)
    SELECT
      (u."timestamp" AT TIME ZONE 'UTC')::date, u.mode, u.used_turn,
      count(*), sum(u.tokens_used), coalesce(sum(u.duration_seconds), 0)
    FROM public.token_usage AS u
    GROUP BY 1, u.mode, u.used_turn;
    INSERT INTO oblivion.user_usage (user_id, sessions, tokens, last_usage, has_lost_rows)
    SELECT u.user_id, count(*), sum(u.tokens_used), max(u."timestamp"), false
    FROM public.token_usage AS u
    GROUP BY u.user_id;
  END IF;
  IF pg_relation_size('public.call_sessions') > 1048576 THEN
    INSERT INTO oblivion.backfills (name) VALUES ('calls');
  ELSE
    INSERT INTO oblivion.daily_calls (
      call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
    )
    SELECT
      a.call_date, sum(a.calls), sum(a.turn_calls), sum(a.video_calls), sum(a.voice_calls),
      sum(a.credits), sum(a.credits_unknown), sum(a.ended_calls), sum(a.seconds)
    FROM public.call_sessions AS c
    CROSS JOIN LATERAL oblivion.call_amounts(c.start_time, c.end_time, c.mode, c.used_turn, c.credit_cost) AS a
    GROUP BY a.call_date;
  END IF;
END
$$;
