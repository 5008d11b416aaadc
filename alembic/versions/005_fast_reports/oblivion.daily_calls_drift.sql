CREATE VIEW oblivion.daily_calls_drift WITH (security_invoker = true) AS
SELECT
  amounts.call_date,
  sum(amounts.calls)::bigint AS calls,
  sum(amounts.turn_calls)::bigint AS turn_calls,
  sum(amounts.video_calls)::bigint AS video_calls,
  sum(amounts.voice_calls)::bigint AS voice_calls,
  sum(amounts.credits) AS credits,
  sum(amounts.credits_unknown)::bigint AS credits_unknown,
  sum(amounts.ended_calls)::bigint AS ended_calls,
  sum(amounts.seconds) AS seconds
FROM ( SELECT a.call_date,
          a.calls,
          a.turn_calls,
          a.video_calls,
          a.voice_calls,
          a.credits,
          a.credits_unknown,
          a.ended_calls,
          a.seconds
         FROM public.call_sessions c
           CROSS JOIN LATERAL oblivion.call_amounts(c.start_time, c.end_time, c.mode, c.used_turn, c.credit_cost) a(call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds)
      UNION ALL
       SELECT rolled_up.call_date,
          - rolled_up.calls,
          - rolled_up.turn_calls,
          - rolled_up.video_calls,
          - rolled_up.voice_calls,
          - rolled_up.credits,
          - rolled_up.credits_unknown,
          - rolled_up.ended_calls,
          - rolled_up.seconds
         FROM ( SELECT daily_calls.call_date,
                  daily_calls.calls,
                  daily_calls.turn_calls,
                  daily_calls.video_calls,
                  daily_calls.voice_calls,
                  daily_calls.credits,
                  daily_calls.credits_unknown,
                  daily_calls.ended_calls,
                  daily_calls.seconds
                 FROM oblivion.daily_calls
              UNION ALL
               SELECT call_deltas.call_date,
                  call_deltas.calls,
                  call_deltas.turn_calls,
                  call_deltas.video_calls,
                  call_deltas.voice_calls,
                  call_deltas.credits,
                  call_deltas.credits_unknown,
                  call_deltas.ended_calls,
                  call_deltas.seconds
                 FROM oblivion.call_deltas) rolled_up) amounts
GROUP BY amounts.call_date
HAVING sum(amounts.calls) <> 0::numeric OR sum(amounts.turn_calls) <> 0::numeric OR sum(amounts.video_calls) <> 0::numeric OR sum(amounts.voice_calls) <> 0::numeric OR sum(amounts.credits) <> 0::numeric OR sum(amounts.credits_unknown) <> 0::numeric OR sum(amounts.ended_calls) <> 0::numeric OR sum(amounts.seconds) <> 0::numeric;
