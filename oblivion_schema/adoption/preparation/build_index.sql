-- Builds the index, after what an interrupted build left is dropped.
SELECT statement
FROM (
  SELECT 1 AS place, 'DROP INDEX CONCURRENTLY public.<name>' AS statement
  WHERE EXISTS (SELECT FROM pg_catalog.pg_index WHERE indexrelid = to_regclass('public.<name>') AND NOT indisvalid)
  UNION ALL
  SELECT 2, '<create>'
  WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_index WHERE indexrelid = to_regclass('public.<name>') AND indisvalid)
) AS statements
WHERE to_regclass('public.<table>') IS NOT NULL
  AND obj_description(to_regclass('public.<table>'), 'pg_class') IS DISTINCT FROM '<comment>'
ORDER BY place
