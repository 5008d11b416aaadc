-- Whether pages billed calls by themselves lately: an index finds the newest rows of usage, and a key their calls.
SELECT EXISTS (
  SELECT
  FROM (SELECT session_id FROM public.token_usage ORDER BY "timestamp" DESC LIMIT 1000) AS u
  JOIN public.call_sessions AS c
    ON c.id = CASE
      WHEN u.session_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN u.session_id::uuid
    END
  LEFT JOIN oblivion.call_meters AS m ON m.session_id = c.id
  WHERE m.session_id IS NULL
)
