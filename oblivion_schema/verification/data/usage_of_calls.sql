-- Calls whose usage is known, because they have ended or go on as usual, and is not what they cost. A deleted account
-- takes its usage with it.
WITH logged AS (
  SELECT session_id, sum(tokens_used) AS tokens FROM public.token_usage GROUP BY session_id
),
calls AS (
  SELECT
    m.session_id,
    coalesce(l.tokens, 0) AS tokens,
    CASE WHEN m.is_plain THEN m.due_before ELSE m.cost END AS expected
  FROM oblivion.call_meters AS m
  JOIN public.user_accounts AS a ON a.user_id = m.user_id
  LEFT JOIN logged AS l ON l.session_id = m.session_id::text
  WHERE (m.settled OR m.is_plain)
    AND NOT EXISTS (SELECT FROM public.token_ledger AS c WHERE c.user_id = m.user_id AND c.kind IN ('closing', 'carried'))
)
SELECT count(*), (array_agg(format('%s: %s of %s', session_id, tokens, expected)))[1:5]
FROM calls
WHERE tokens <> expected
