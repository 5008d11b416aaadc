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

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.page_calls FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.page_calls FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

COMMENT ON VIEW oblivion.page_calls IS
  'Metered calls of pages that go on, and the last heartbeat of each; of several calls of a user in a room the last.';
COMMENT ON COLUMN oblivion.page_calls.session_id IS 'The call.';
COMMENT ON COLUMN oblivion.page_calls.heartbeat IS
  'Last heartbeat of its room, or of the host who makes it; NULL if there was none.';
