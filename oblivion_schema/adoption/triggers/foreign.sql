-- The triggers on the tables :tables that are not among :ours, which are written as trigger on schema.table.
SELECT
  t.tgname::text AS name,
  format('%I.%I', tn.nspname, c.relname) AS on_table,
  format('%I.%I()', pn.nspname, p.proname) AS function,
  t.tgtype & 1 = 1 AS for_each_row,
  EXISTS (SELECT FROM unnest(p.proconfig) AS setting WHERE starts_with(setting, 'search_path=')) AS has_path
FROM pg_trigger AS t
JOIN pg_class AS c ON c.oid = t.tgrelid
JOIN pg_namespace AS tn ON tn.oid = c.relnamespace
JOIN pg_proc AS p ON p.oid = t.tgfoid
JOIN pg_namespace AS pn ON pn.oid = p.pronamespace
WHERE NOT t.tgisinternal
  AND t.tgenabled <> 'D'
  AND format('%s.%s', tn.nspname, c.relname) = ANY (CAST(:tables AS text[]))
  AND format('%s on %s.%s', t.tgname, tn.nspname, c.relname) <> ALL (CAST(:ours AS text[]))
ORDER BY 2, 1
