-- What else is in schema public: neither ours, nor an extension's; :names are ours.
SELECT
  CASE relkind
    WHEN 'v' THEN 'view'
    WHEN 'm' THEN 'materialized view'
    WHEN 'f' THEN 'foreign table'
    ELSE 'table'
  END AS kind,
  format('public.%I', relname) AS name
FROM pg_class AS c
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')
  AND relname <> ALL (CAST(:names AS text[]))
  AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e')
UNION ALL
SELECT 'grant', format('%s on public.%I to %s', string_agg(privilege_type, ', '), relname, grantee::regrole)
FROM pg_class, aclexplode(relacl)
WHERE relnamespace = 'public'::regnamespace AND relkind = 'v' AND relname = ANY (CAST(:names AS text[]))
  AND grantee NOT IN (0, relowner) AND grantee::regrole::text NOT IN ('anon', 'authenticated', 'service_role')
GROUP BY relname, grantee
UNION ALL
SELECT 'grant', format('%s (%I) on public.%I to %s', privilege_type, attname, relname, grantee::regrole)
FROM pg_class AS c
JOIN pg_attribute ON attrelid = c.oid
CROSS JOIN aclexplode(attacl)
WHERE relnamespace = 'public'::regnamespace AND relname = ANY (CAST(:names AS text[]))
  AND grantee NOT IN (0, relowner) AND grantee::regrole::text NOT IN ('anon', 'authenticated', 'service_role')
ORDER BY 1, 2
