CREATE FUNCTION oblivion.explain_call(session_id uuid, caller text)
RETURNS TABLE(segment integer, mode text, used_turn boolean, first_minute integer, minutes integer, tokens_per_minute integer, rate_from timestamp with time zone, due integer, charged integer, shortfall integer)
LANGUAGE sql
STABLE SECURITY DEFINER
SET search_path TO ''
BEGIN ATOMIC
SELECT s.number,
     m.mode,
     s.used_turn,
     (s.first_minute + 1),
         CASE
             WHEN (s.tokens_per_minute > 0) THEN (p.due / s.tokens_per_minute)
             ELSE GREATEST(0, s.minutes)
         END AS "greatest",
     s.tokens_per_minute,
     s.rate_from,
     p.due,
     (p.due - s.shortfall),
     s.shortfall
    FROM (((oblivion.call_meters m
      JOIN public.call_sessions c ON ((c.id = m.session_id)))
      CROSS JOIN LATERAL ( SELECT call_segments.number,
             call_segments.used_turn,
             call_segments.tokens_per_minute,
             call_segments.rate_from,
             call_segments.first_minute,
             call_segments.minutes,
             call_segments.due_before,
             call_segments.due_after,
             call_segments.shortfall
            FROM oblivion.call_segments
           WHERE (call_segments.session_id = m.session_id)
         UNION ALL
          SELECT m.segment,
             m.used_turn,
             m.tokens_per_minute,
                 CASE
                     WHEN m.used_turn THEN m.turn_rate_from
                     ELSE m.direct_rate_from
                 END AS direct_rate_from,
             m.first_minute,
             ((ceil((date_part('epoch'::text, (COALESCE(c.end_time, c.updated_at) - c.start_time)) / (60)::double precision)))::integer - m.first_minute),
             m.due_before,
             (c.credit_cost)::bigint AS credit_cost,
             m.shortfall) s)
      CROSS JOIN LATERAL ( SELECT (GREATEST((0)::bigint, (LEAST(s.due_after, (c.credit_cost)::bigint) - s.due_before)))::integer AS due) p)
   WHERE ((m.session_id = explain_call.session_id) AND oblivion.may_act_for(c.user_id, explain_call.caller))
   ORDER BY s.number;
END;
