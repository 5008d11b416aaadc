-- The objects of the catalog rows :catalogs, :classes, :ids that are none of the :known addresses, nor part of one.
WITH
written AS (
  SELECT DISTINCT * FROM unnest(CAST(:catalogs AS oid[]), CAST(:classes AS oid[]), CAST(:ids AS oid[])) AS w (catalog, class, id)
),
known AS (
  SELECT c.class::oid, split_part(address, ' ', 2)::oid AS id
  FROM unnest(CAST(:known AS text[])) AS address
  JOIN (VALUES
    ('schema', 'pg_namespace'::regclass),
    ('relation', 'pg_class'),
    ('identity', 'pg_class'),
    ('function', 'pg_proc'),
    ('constraint', 'pg_constraint'),
    ('trigger', 'pg_trigger'),
    ('policy', 'pg_policy'),
    ('publication', 'pg_publication_rel')
  ) AS c (kind, class) ON c.kind = split_part(address, ' ', 1)
  UNION ALL
  -- States of a column.
  SELECT 'pg_attrdef'::regclass, oid FROM pg_attrdef WHERE concat('relation ', adrelid) = ANY (CAST(:known AS text[]))
  UNION ALL
  SELECT 'pg_constraint'::regclass, oid
  FROM pg_constraint
  WHERE contype = 'n' AND concat('relation ', conrelid) = ANY (CAST(:known AS text[]))
  UNION ALL
  SELECT 'pg_namespace'::regclass, oid
  FROM pg_namespace
  WHERE nspname = ANY (CAST(:schemas AS text[])) OR nspname ~ '^pg_(toast_)?temp_'
),
-- Each object with those that it is part of: a row type and its table, an index and its constraint.
part AS (
  SELECT classid AS class, objid AS id, refclassid AS of_class, refobjid AS of_id, deptype
  FROM pg_depend
  WHERE deptype IN ('i', 'e', 'P', 'S', 'a')
),
unknown AS (
  SELECT class, id
  FROM written
  WHERE catalog NOT IN ('pg_description'::regclass, 'pg_seclabel'::regclass)
    AND (class, id) NOT IN (SELECT class, id FROM known)
    AND NOT EXISTS (SELECT FROM part WHERE part.class = written.class AND part.id = written.id AND deptype IN ('i', 'e'))
    -- What an extension adds to an operator family, one of its own.
    AND NOT EXISTS (
      SELECT FROM part JOIN part AS whole ON whole.class = part.of_class AND whole.id = part.of_id AND whole.deptype = 'e'
      WHERE part.class = written.class AND part.id = written.id
        AND part.class IN ('pg_amop'::regclass, 'pg_amproc'::regclass)
    )
    AND NOT EXISTS (
      SELECT FROM pg_class WHERE class = 'pg_class'::regclass AND pg_class.oid = id AND relnamespace = 'pg_toast'::regnamespace
    )
)
SELECT concat(o.type, ' ', o.identity) AS name
FROM unknown
CROSS JOIN LATERAL pg_identify_object(class, id, 0) AS o
WHERE NOT EXISTS (
  SELECT FROM part JOIN unknown AS whole ON whole.class = of_class AND whole.id = of_id
  WHERE part.class = unknown.class AND part.id = unknown.id
)
UNION
SELECT concat(CASE catalog WHEN 'pg_description'::regclass THEN 'comment on ' ELSE 'security label of ' END, o.type, ' ', o.identity)
FROM written
CROSS JOIN LATERAL pg_identify_object(class, id, 0) AS o
WHERE catalog = 'pg_seclabel'::regclass
  OR (catalog = 'pg_description'::regclass AND (
    class IN ('pg_type'::regclass, 'pg_rewrite'::regclass)
    OR (class = 'pg_namespace'::regclass AND o.name = 'public')
    OR ((class, id) IN (SELECT class, id FROM known) IS FALSE AND NOT EXISTS (
      SELECT FROM part WHERE part.class = written.class AND part.id = written.id AND deptype = 'i'
    ))
  ))
UNION
-- PostgreSQL names NOT NULL by itself before 18.
SELECT format('NOT NULL constraint %I on %s, which has a name of its own', conname, conrelid::regclass)
FROM written
JOIN pg_constraint AS k ON class = 'pg_constraint'::regclass AND k.oid = id
WHERE contype = 'n' AND conname !~ '_not_null[0-9]*$'
UNION
SELECT format('tablespace of %s', id::regclass)
FROM written
JOIN pg_class AS c ON class = 'pg_class'::regclass AND c.oid = id
WHERE reltablespace <> 0
ORDER BY 1
