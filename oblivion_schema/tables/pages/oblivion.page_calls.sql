-- A heartbeat of the call's room, or of the host who makes the call, is a sign of life. A user is in a room once, so a
-- heartbeat keeps only the last open call alive that the user began there.
-- A host who stays online would keep a call alive forever whose end was lost: heartbeats count for its first 12 hours. An
-- honest call that is longer is billed by its end.
-- A heartbeat in the future is none: clients wrote such times in databases that were made by hand.
CREATE VIEW oblivion.page_calls WITH (security_invoker = true) AS
SELECT DISTINCT ON (m.user_id, c.room_id)
  m.session_id,
  CASE
    WHEN r.updated_at IS NOT NULL OR h.updated_at IS NOT NULL
      THEN least(greatest(r.updated_at, h.updated_at), m.started_at + interval '12 hours')
  END AS heartbeat
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
