-- Keeps the newest row of each host, and moves the others to the adoption log.
DO $$
BEGIN
  IF to_regclass('public.user_presence') IS NULL OR to_regclass('public.idx_user_presence_host_unique') IS NOT NULL
  THEN
    RETURN;
  END IF;
  IF NOT EXISTS (SELECT FROM public.user_presence GROUP BY host_id HAVING count(*) > 1) THEN
    RETURN;
  END IF;
  IF EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE confrelid = 'public.user_presence'::regclass) THEN
    RAISE EXCEPTION 'public.user_presence has hosts with several rows, and another table refers to them'
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Leave one row for each host, and run it again';
  END IF;
  WITH ranked AS (
    SELECT
      id,
      first_value(id) OVER newest_first AS kept,
      row_number() OVER newest_first AS place
    FROM public.user_presence
    WINDOW newest_first AS (PARTITION BY host_id ORDER BY updated_at DESC NULLS LAST, id)
  ),
  moved AS (
    DELETE FROM public.user_presence AS p
    USING ranked
    WHERE ranked.id = p.id AND place > 1
    RETURNING p.*, kept
  )
  INSERT INTO oblivion.adoption_log (kind, name, why, was)
  SELECT
    'row',
    'public.user_presence',
    format('Host %s has a newer row, %s.', host_id, kept),
    (to_jsonb(moved) - 'kept')::json
  FROM moved;
END
$$;
