-- Tables of this role that are not ours: they are not moved.
SELECT format('%I.%I', n.nspname, c.relname)
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f')
  AND NOT c.relispartition
  AND c.relpersistence <> 't'
  AND pg_has_role(c.relowner, 'USAGE')
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'oblivion_move')
  AND c.oid <> ALL (CAST(:tables AS regclass[]))
  AND c.oid IS DISTINCT FROM to_regclass('oblivion.alembic_version')
  AND NOT EXISTS (
    SELECT FROM pg_depend AS d
    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
  )
ORDER BY 1
