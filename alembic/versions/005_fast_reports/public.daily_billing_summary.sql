CREATE OR REPLACE VIEW public.daily_billing_summary WITH (security_invoker = true) AS
SELECT
  amounts.call_date,
  sum(amounts.calls)::bigint AS total_calls,
  sum(amounts.turn_calls)::bigint AS turn_calls,
  sum(amounts.video_calls)::bigint AS video_calls,
  sum(amounts.voice_calls)::bigint AS voice_calls,
      CASE
          WHEN sum(amounts.credits_unknown) > 0::numeric THEN 'NaN'::numeric
          ELSE sum(amounts.credits)
      END AS total_credits,
  sum(amounts.seconds) / (60::numeric * NULLIF(sum(amounts.ended_calls), 0::numeric)) AS avg_duration_minutes
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
        WHERE NOT oblivion.open_access() AND NOT (EXISTS ( SELECT
                 FROM oblivion.sees_all))
      UNION ALL
       SELECT daily_calls.call_date,
          daily_calls.calls,
          daily_calls.turn_calls,
          daily_calls.video_calls,
          daily_calls.voice_calls,
          daily_calls.credits,
          daily_calls.credits_unknown,
          daily_calls.ended_calls,
          daily_calls.seconds
         FROM oblivion.daily_calls
        WHERE oblivion.open_access() OR (EXISTS ( SELECT
                 FROM oblivion.sees_all))
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
         FROM oblivion.call_deltas
        WHERE oblivion.open_access() OR (EXISTS ( SELECT
                 FROM oblivion.sees_all))) amounts
GROUP BY amounts.call_date
HAVING sum(amounts.calls) <> 0::numeric
ORDER BY amounts.call_date DESC;
