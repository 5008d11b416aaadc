-- Which of the objects that the upgrade makes are there already; what is wrong where one cannot be replaced.
SELECT
  made.place,
  made.kind,
  made.name,
  made.on_table,
  CASE
    WHEN p.oid IS NULL THEN NULL
    WHEN made.kind = 'trigger function' AND p.prorettype <> 'trigger'::regtype
      THEN 'is no trigger function, and ours has that name: rename it'
    WHEN NOT pg_has_role(p.proowner, 'USAGE') THEN format('belongs to %s, who has to run this', p.proowner::regrole)
  END AS wrong
FROM unnest(CAST(:kinds AS text[]), CAST(:names AS text[]), CAST(:tables AS text[]))
  WITH ORDINALITY AS made (kind, name, on_table, place)
LEFT JOIN pg_proc AS p ON p.oid = CASE WHEN made.kind LIKE '%function' THEN to_regprocedure(made.name) END
WHERE CASE made.kind
  WHEN 'table' THEN to_regclass(made.name) IS NOT NULL
  WHEN 'trigger' THEN EXISTS (
    SELECT FROM pg_trigger WHERE tgrelid = to_regclass(made.on_table) AND tgname = made.name
  )
  ELSE p.oid IS NOT NULL
END
ORDER BY made.place
