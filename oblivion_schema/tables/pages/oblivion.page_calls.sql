-- A heartbeat of the call's room, or of the host who makes the call, is a sign of life. A user is in a room once, so a
-- heartbeat keeps only the last call alive that the user began there: one whose end was lost costs no more.
-- A heartbeat in the future is none: clients wrote such times in databases that were made by hand.
CREATE VIEW oblivion.page_calls WITH (security_invoker = true) AS
SELECT DISTINCT ON (m.user_id, c.room_id)
  m.session_id,
  greatest(r.updated_at, h.updated_at) AS heartbeat
FROM oblivion.call_meters AS m
JOIN public.call_sessions AS c ON c.id = m.session_id AND c.end_time IS NULL
LEFT JOIN (
  SELECT room_id, max(updated_at) AS updated_at
  FROM public.user_presence
  WHERE updated_at <= clock_timestamp()
  GROUP BY room_id
) AS r ON r.room_id = c.room_id
LEFT JOIN public.user_presence AS h ON h.host_id = c.user_id AND h.updated_at <= clock_timestamp()
WHERE m.by_page AND NOT m.settled
ORDER BY m.user_id, c.room_id, m.started_at DESC, m.session_id;

COMMENT ON VIEW oblivion.page_calls IS
  'Metered calls of pages that go on, and the last heartbeat of each; of several calls of a user in a room the last.';
