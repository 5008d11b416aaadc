-- What was granted in the schemas of a site to roles that the code does not know: a statement for each.
WITH acls AS (
  SELECT 'SCHEMA ' || quote_ident(n.nspname) AS object, n.nspname, n.nspowner AS owner, n.nspacl AS acl, '' AS part
  FROM pg_namespace AS n
  UNION ALL
  SELECT
    CASE c.relkind WHEN 'S' THEN 'SEQUENCE ' ELSE 'TABLE ' END || format('%I.%I', n.nspname, c.relname),
    n.nspname,
    c.relowner,
    c.relacl,
    ''
  FROM pg_class AS c
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  UNION ALL
  SELECT format('TABLE %I.%I', n.nspname, c.relname), n.nspname, c.relowner, a.attacl, format(' (%I)', a.attname)
  FROM pg_attribute AS a
  JOIN pg_class AS c ON c.oid = a.attrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE a.attnum > 0 AND NOT a.attisdropped
  UNION ALL
  SELECT
    format('ROUTINE %I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
    n.nspname,
    p.proowner,
    p.proacl,
    ''
  FROM pg_proc AS p
  JOIN pg_namespace AS n ON n.oid = p.pronamespace
)
SELECT
  r.rolname AS role,
  format(
    'GRANT %s%s ON %s TO %I%s',
    e.privilege_type,
    a.part,
    a.object,
    r.rolname,
    CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
  ) AS statement
FROM acls AS a
CROSS JOIN LATERAL aclexplode(a.acl) AS e
JOIN pg_roles AS r ON r.oid = e.grantee
WHERE a.nspname IN ('public', 'oblivion')
  AND e.grantee <> a.owner
  AND r.rolname <> ALL (CAST(:known AS text[]))
ORDER BY 2
