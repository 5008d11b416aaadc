-- Runs in the transaction of the statement that fires it, so sums are never behind their rows.
-- It appends deltas and updates no sum, so writers neither wait for each other nor deadlock.
-- The newest timestamp of added rows is the last usage of an account as long as no newer row was removed.
CREATE OR REPLACE FUNCTION oblivion.note_usage()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  noted integer;
  further integer := 0;
BEGIN
  IF TG_RELID <> 'public.token_usage'::pg_catalog.regclass THEN
    RAISE insufficient_privilege USING MESSAGE = 'Only a trigger of token_usage may do that';
  END IF;
  IF TG_OP = 'INSERT' THEN
    -- Most statements insert one row. The first 100 rows become one delta each; the others are summed.
    INSERT INTO oblivion.usage_deltas (
      user_id, usage_date, mode, used_turn, sessions, tokens, seconds, last_usage, has_lost_rows
    )
    SELECT
      a.user_id, (a."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, a.mode, a.used_turn,
      1, a.tokens_used, coalesce(a.duration_seconds, 0), a."timestamp", false
    FROM added AS a
    LIMIT 100;
    GET DIAGNOSTICS noted = ROW_COUNT;
    IF noted = 100 THEN
      INSERT INTO oblivion.usage_deltas (
        user_id, usage_date, mode, used_turn, sessions, tokens, seconds, last_usage, has_lost_rows
      )
      SELECT
        a.user_id, (a."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, a.mode, a.used_turn,
        count(*), sum(a.tokens_used), coalesce(sum(a.duration_seconds), 0), max(a."timestamp"), false
      FROM (SELECT * FROM added OFFSET 100) AS a
      GROUP BY GROUPING SETS (((a."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, a.mode, a.used_turn), (a.user_id));
      GET DIAGNOSTICS further = ROW_COUNT;
    END IF;
  ELSIF TG_OP = 'DELETE' THEN
    INSERT INTO oblivion.usage_deltas (
      user_id, usage_date, mode, used_turn, sessions, tokens, seconds, last_usage, has_lost_rows
    )
    SELECT
      r.user_id, (r."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, r.mode, r.used_turn,
      -count(*), -sum(r.tokens_used), -coalesce(sum(r.duration_seconds), 0), NULL, true
    FROM removed AS r
    GROUP BY GROUPING SETS (((r."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, r.mode, r.used_turn), (r.user_id));
    GET DIAGNOSTICS noted = ROW_COUNT;
  ELSE
    INSERT INTO oblivion.usage_deltas (
      user_id, usage_date, mode, used_turn, sessions, tokens, seconds, last_usage, has_lost_rows
    )
    SELECT
      c.user_id, c.usage_date, c.mode, c.used_turn,
      sum(c.sign), sum(c.sign * c.tokens_used), sum(c.sign * c.seconds),
      max(c.came), coalesce(max(c.went) > max(c.came), max(c.came) IS NULL)
    FROM (
      SELECT
        1 AS sign, a.user_id, (a."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date AS usage_date, a.mode, a.used_turn,
        a.tokens_used, coalesce(a.duration_seconds, 0) AS seconds, a."timestamp" AS came,
        NULL::timestamp with time zone AS went
      FROM added AS a
      UNION ALL
      SELECT
        -1, r.user_id, (r."timestamp" AT TIME ZONE 'UTC')::pg_catalog.date, r.mode, r.used_turn,
        r.tokens_used, coalesce(r.duration_seconds, 0), NULL, r."timestamp"
      FROM removed AS r
    ) AS c
    GROUP BY GROUPING SETS ((c.usage_date, c.mode, c.used_turn), (c.user_id))
    HAVING (sum(c.sign), sum(c.sign * c.tokens_used), sum(c.sign * c.seconds)) <> (0, 0, 0)
      OR max(c.came) <> max(c.went);
    GET DIAGNOSTICS noted = ROW_COUNT;
  END IF;
  IF random() * 1000 < noted + further THEN
    PERFORM oblivion.fold_usage(10000 + noted + further);
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.note_usage() IS
  'Trigger on token_usage: appends to usage_deltas what the statement changed.';
