-- The objects of the schemas :schemas as PostgreSQL prints them: a row for each object, and for each state of one.
--
-- The columns are the fields of Object in catalog.py. catalog.py sets an empty search_path, so that PostgreSQL prints
-- every name with its schema.
--
-- "found" has the rows, "need" the dependencies between them.
WITH
namespace AS (
  SELECT oid, nspname, nspowner, nspacl FROM pg_namespace WHERE nspname = ANY (CAST(:schemas AS text[]))
),
deployer AS (
  SELECT nspowner AS role FROM namespace WHERE nspname = :private
),
grantee AS (
  SELECT oid, quote_ident(rolname) AS name FROM pg_roles WHERE rolname = ANY (CAST(:roles AS text[]))
  UNION ALL
  SELECT 0, 'PUBLIC'
),
extension_member AS (
  SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
),
relation AS (
  SELECT c.*, format('%I.%I', n.nspname, c.relname) AS name, concat('relation ', c.oid) AS address
  FROM pg_class AS c
  JOIN namespace AS n ON n.oid = c.relnamespace
  WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
    AND NOT EXISTS (SELECT FROM extension_member WHERE classid = 'pg_class'::regclass AND objid = c.oid)
),
attribute AS (
  SELECT
    a.*,
    quote_ident(a.attname) AS own_name,
    r.name AS on_name,
    r.address AS relation_address,
    format('column %s.%s', a.attrelid, a.attnum) AS address,
    d.oid AS default_oid,
    pg_get_expr(d.adbin, d.adrelid, true) AS expression,
    k.convalidated,
    k.connoinherit
  FROM relation AS r
  JOIN pg_attribute AS a ON a.attrelid = r.oid
  LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
  -- NOT NULL is a constraint since 18.
  LEFT JOIN pg_constraint AS k ON k.conrelid = a.attrelid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum]
  WHERE r.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
),
storage AS (
  SELECT * FROM (VALUES ('p', 'PLAIN'), ('e', 'EXTERNAL'), ('m', 'MAIN'), ('x', 'EXTENDED')) AS s (code, name)
),
identity AS (
  SELECT
    a.address, a.own_name, a.on_name, a.relation_address, a.attname, a.attidentity, a.attrelid, s.*,
    -- The bounds that PostgreSQL gives it in its direction, if nobody says any.
    CASE WHEN seqincrement > 0 THEN 1 ELSE -(2::numeric ^ (8 * attlen - 1)) END AS lowest,
    CASE WHEN seqincrement > 0 THEN 2::numeric ^ (8 * attlen - 1) - 1 ELSE -1 END AS highest
  FROM attribute AS a
  JOIN pg_depend AS d
    ON d.refclassid = 'pg_class'::regclass AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum
    AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
  JOIN pg_sequence AS s ON s.seqrelid = d.objid
),
-- The index of each constraint that has one.
constraint_index AS (
  SELECT conindid, oid, concat('constraint ', oid) AS address FROM pg_constraint WHERE contype IN ('p', 'u', 'x')
),
routine AS (
  SELECT p.*, p.oid::regprocedure::text AS name, concat('function ', p.oid) AS address
  FROM pg_proc AS p
  JOIN namespace AS n ON n.oid = p.pronamespace
  WHERE NOT EXISTS (SELECT FROM extension_member WHERE classid = 'pg_proc'::regclass AND objid = p.oid)
    -- A range type makes functions, which belong to it.
    AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_proc'::regclass AND objid = p.oid AND deptype = 'i')
),
-- The indexes that a setting of their table may name.
named_index AS (
  SELECT indrelid AS table_oid, indexrelid, relname AS index, indisclustered, indisreplident
  FROM pg_index
  JOIN pg_class AS c ON c.oid = indexrelid
  WHERE indisclustered OR indisreplident
),
-- Objects that have an owner, privileges or a comment; name is how ALTER ... OWNER, GRANT and COMMENT ON name them.
target AS (
  SELECT
    concat('schema ', oid) AS address,
    'pg_namespace'::regclass AS class,
    oid,
    concat('SCHEMA ', quote_ident(nspname)) AS name,
    nspowner AS owner,
    coalesce(nspacl, acldefault('n', nspowner)) AS acl
  FROM namespace
  WHERE nspname = :private
  UNION ALL
  SELECT
    address,
    'pg_class'::regclass,
    oid,
    concat(CASE relkind WHEN 'v' THEN 'VIEW ' ELSE 'TABLE ' END, name),
    relowner,
    coalesce(relacl, acldefault('r', relowner))
  FROM relation
  WHERE relkind IN ('r', 'v')
  UNION ALL
  SELECT
    address,
    'pg_proc'::regclass,
    oid,
    concat(CASE prokind WHEN 'p' THEN 'PROCEDURE ' ELSE 'FUNCTION ' END, name),
    proowner,
    coalesce(proacl, acldefault('f', proowner))
  FROM routine
  WHERE prokind IN ('f', 'p')
  UNION ALL
  SELECT
    concat('identity ', seqrelid),
    'pg_class'::regclass,
    seqrelid,
    concat('SEQUENCE ', seqrelid::regclass),
    NULL,
    (SELECT coalesce(relacl, acldefault('s', relowner)) FROM pg_class WHERE oid = seqrelid)
  FROM identity
  UNION ALL
  -- NOT NULL is a state of its column, and the constraint of a constraint trigger is part of that.
  SELECT
    CASE contype
      WHEN 'n' THEN format('column %s.%s', conrelid, conkey[1])
      WHEN 't' THEN concat('trigger ', t.oid)
      ELSE concat('constraint ', c.oid)
    END,
    'pg_constraint'::regclass,
    c.oid,
    format('CONSTRAINT %I ON %s', conname, r.name),
    NULL,
    NULL
  FROM pg_constraint AS c
  JOIN relation AS r ON r.oid = c.conrelid
  LEFT JOIN pg_trigger AS t ON contype = 't' AND t.tgconstraint = c.oid
  UNION ALL
  SELECT
    coalesce(k.address, concat('relation ', indexrelid)),
    'pg_class'::regclass,
    indexrelid,
    concat('INDEX ', indexrelid::regclass),
    NULL,
    NULL
  FROM pg_index
  JOIN relation AS r ON r.oid = indrelid
  LEFT JOIN constraint_index AS k ON conindid = indexrelid
  UNION ALL
  SELECT
    concat('trigger ', t.oid),
    'pg_trigger'::regclass,
    t.oid,
    format('TRIGGER %I ON %s', tgname, r.name),
    NULL,
    NULL
  FROM pg_trigger AS t
  JOIN relation AS r ON r.oid = t.tgrelid
  WHERE NOT tgisinternal
  UNION ALL
  SELECT concat('policy ', p.oid), 'pg_policy'::regclass, p.oid, format('POLICY %I ON %s', polname, r.name), NULL, NULL
  FROM pg_policy AS p
  JOIN relation AS r ON r.oid = p.polrelid
),
privilege AS (
  SELECT
    t.address,
    regexp_replace(t.name, '^VIEW ', 'TABLE ') AS target,
    coalesce(t.owner, (SELECT relowner FROM pg_class WHERE oid = t.oid)) AS owner,
    '' AS columns,
    0 AS attnum,
    t.acl
  FROM target AS t
  WHERE t.acl IS NOT NULL
  UNION ALL
  SELECT
    CASE relkind WHEN 'v' THEN r.address ELSE format('column %s.%s', attrelid, attnum) END,
    concat('TABLE ', r.name),
    relowner,
    format(' (%I)', attname),
    attnum,
    attacl
  FROM pg_attribute
  JOIN relation AS r ON r.oid = attrelid
  WHERE relkind IN ('r', 'v') AND attacl IS NOT NULL AND NOT attisdropped
),
-- kind, own_name, on_name, definition, shape, address, part_of, sort
found AS (
  SELECT
    'schema' AS kind,
    quote_ident(nspname) AS own_name,
    NULL AS on_name,
    '' AS definition,
    NULL AS shape,
    concat('schema ', oid) AS address,
    NULL AS part_of,
    oid::bigint AS sort
  FROM namespace
  WHERE nspname = :private
  UNION ALL
  SELECT 'table', name, NULL, CASE relpersistence WHEN 'u' THEN 'UNLOGGED' ELSE 'LOGGED' END, NULL, address, NULL, oid
  FROM relation
  WHERE relkind = 'r'
  UNION ALL
  -- Of the table, of its TOAST table, and of an index that is made with its constraint: ALTER TABLE takes its name, too.
  SELECT
    'storage parameter',
    concat(prefix, split_part(o, '=', 1)),
    on_name,
    substr(o, strpos(o, '=') + 1),
    NULL,
    NULL,
    address,
    oid
  FROM (
    SELECT '' AS prefix, name AS on_name, reloptions, address, oid FROM relation WHERE relkind = 'r'
    UNION ALL
    SELECT 'toast.', r.name, t.reloptions, r.address, r.oid
    FROM relation AS r
    JOIN pg_class AS t ON t.oid = r.reltoastrelid
    WHERE r.relkind = 'r'
    UNION ALL
    SELECT '', indexrelid::regclass::text, i.reloptions, k.address, k.oid
    FROM pg_index
    JOIN relation AS r ON r.oid = indrelid
    JOIN pg_class AS i ON i.oid = indexrelid
    JOIN constraint_index AS k ON conindid = indexrelid
    -- PostgreSQL prints those of an exclusion constraint.
    WHERE NOT indisexclusion
  ) AS s
  CROSS JOIN unnest(reloptions) AS o
  UNION ALL
  -- Settings of ALTER TABLE; the shape is the clause that resets one. One that names an index has an address, because
  -- it needs the index.
  SELECT
    'setting',
    own_name,
    name,
    definition,
    shape,
    CASE WHEN index IS NOT NULL THEN format('setting %s of %s', own_name, oid) END,
    address,
    oid
  FROM relation
  CROSS JOIN LATERAL (
    SELECT
      'replica identity' AS own_name,
      CASE WHEN relreplident = 'f' THEN 'REPLICA IDENTITY FULL'
        -- PostgreSQL keeps the letter of an index that somebody dropped, and treats the table as one without identity.
        WHEN r.index IS NULL THEN 'REPLICA IDENTITY NOTHING'
        ELSE concat('REPLICA IDENTITY USING INDEX ', quote_ident(r.index)) END AS definition,
      'REPLICA IDENTITY DEFAULT' AS shape,
      r.index
    FROM (SELECT max(index) AS index FROM named_index WHERE table_oid = relation.oid AND indisreplident) AS r
    WHERE relreplident <> 'd'
    UNION ALL
    SELECT 'cluster', concat('CLUSTER ON ', quote_ident(index)), 'SET WITHOUT CLUSTER', index
    FROM named_index
    WHERE table_oid = relation.oid AND indisclustered
    UNION ALL
    SELECT 'access method', concat('SET ACCESS METHOD ', quote_ident(amname)), 'SET ACCESS METHOD heap', NULL
    FROM pg_am
    WHERE pg_am.oid = relam AND amname <> 'heap'
  ) AS s
  WHERE relkind = 'r'
  UNION ALL
  SELECT
    'setting',
    concat(setting, ' of column ', own_name),
    on_name,
    format('ALTER COLUMN %s %s', own_name, definition),
    format('ALTER COLUMN %s %s', own_name, shape),
    NULL,
    address,
    attnum
  FROM attribute
  CROSS JOIN LATERAL (
    SELECT 'statistics' AS setting, concat('SET STATISTICS ', attstattarget) AS definition, 'SET STATISTICS -1' AS shape
    WHERE attstattarget >= 0
    UNION ALL
    SELECT 'storage', concat('SET STORAGE ', storage.name), concat('SET STORAGE ', standard.name)
    FROM pg_type AS t
    JOIN storage ON storage.code = attstorage
    JOIN storage AS standard ON standard.code = t.typstorage
    WHERE t.oid = atttypid AND attstorage <> typstorage
    UNION ALL
    SELECT
      'compression',
      concat('SET COMPRESSION ', CASE attcompression WHEN 'p' THEN 'pglz' ELSE 'lz4' END),
      'SET COMPRESSION DEFAULT'
    WHERE attcompression <> ''
    UNION ALL
    SELECT
      split_part(o, '=', 1),
      format('SET (%s)', replace(o, '=', ' = ')),
      format('RESET (%s)', split_part(o, '=', 1))
    FROM unnest(attoptions) AS o
  ) AS s
  UNION ALL
  SELECT
    'setting',
    concat('statistics of column ', attnum),
    indexrelid::regclass::text,
    format('ALTER COLUMN %s SET STATISTICS %s', attnum, attstattarget),
    format('ALTER COLUMN %s SET STATISTICS -1', attnum),
    NULL,
    coalesce(k.address, concat('relation ', indexrelid)),
    attnum
  FROM pg_index
  JOIN relation AS r ON r.oid = indrelid
  JOIN pg_attribute ON attrelid = indexrelid
  LEFT JOIN constraint_index AS k ON conindid = indexrelid
  WHERE attstattarget >= 0
  UNION ALL
  SELECT
    'column',
    own_name,
    on_name,
    CASE attgenerated WHEN 's' THEN format('GENERATED ALWAYS AS (%s) STORED', expression)
      WHEN 'v' THEN format('GENERATED ALWAYS AS (%s) VIRTUAL', expression) ELSE '' END,
    NULL,
    address,
    relation_address,
    attnum
  FROM attribute
  UNION ALL
  SELECT
    'type',
    own_name,
    on_name,
    concat(
      format_type(atttypid, atttypmod),
      CASE WHEN attcollation <> (SELECT typcollation FROM pg_type WHERE oid = atttypid)
        THEN concat(' COLLATE ', attcollation::regcollation) END
    ),
    NULL,
    NULL,
    address,
    attnum
  FROM attribute
  UNION ALL
  SELECT
    'nullability',
    own_name,
    on_name,
    CASE WHEN NOT attnotnull THEN 'NULL' WHEN NOT convalidated THEN 'NOT NULL NOT VALID' ELSE 'NOT NULL' END,
    NULL,
    NULL,
    address,
    attnum
  FROM attribute
  UNION ALL
  SELECT 'default', own_name, on_name, expression, NULL, concat('default ', default_oid), address, attnum
  FROM attribute
  WHERE expression IS NOT NULL AND attgenerated = ''
  UNION ALL
  SELECT
    'identity',
    own_name,
    on_name,
    concat_ws(
      ' ',
      CASE attidentity WHEN 'a' THEN 'GENERATED ALWAYS' ELSE 'GENERATED BY DEFAULT' END,
      CASE WHEN seqincrement <> 1 THEN concat('INCREMENT BY ', seqincrement) END,
      CASE WHEN seqmin <> lowest THEN concat('MINVALUE ', seqmin) END,
      CASE WHEN seqmax <> highest THEN concat('MAXVALUE ', seqmax) END,
      CASE WHEN seqstart <> CASE WHEN seqincrement > 0 THEN seqmin ELSE seqmax END
        THEN concat('START WITH ', seqstart) END,
      CASE WHEN seqcache <> 1 THEN concat('CACHE ', seqcache) END,
      CASE WHEN seqcycle THEN 'CYCLE' END
    ),
    seqrelid::regclass::text,
    concat('identity ', seqrelid),
    address,
    0
  FROM identity
  UNION ALL
  SELECT
    CASE contype WHEN 'p' THEN 'primary key' WHEN 'f' THEN 'foreign key' WHEN 'u' THEN 'unique constraint'
      WHEN 'c' THEN 'check constraint' ELSE 'exclusion constraint' END,
    quote_ident(conname),
    r.name,
    pg_get_constraintdef(c.oid, true),
    NULL,
    concat('constraint ', c.oid),
    r.address,
    c.oid
  FROM pg_constraint AS c
  JOIN relation AS r ON r.oid = c.conrelid
  WHERE contype IN ('p', 'f', 'u', 'c', 'x')
  UNION ALL
  SELECT
    'index',
    indexrelid::regclass::text,
    r.name,
    concat(
      regexp_replace(pg_get_indexdef(indexrelid, 0, true), ' USING btree \(', ' ('),
      CASE WHEN NOT indisvalid THEN ' -- invalid' END
    ),
    NULL,
    concat('relation ', indexrelid),
    r.address,
    indexrelid
  FROM pg_index AS i
  JOIN relation AS r ON r.oid = indrelid
  WHERE NOT EXISTS (SELECT FROM constraint_index WHERE conindid = indexrelid)
  UNION ALL
  SELECT
    'view',
    name,
    NULL,
    concat(
      'WITH (' || replace(array_to_string(nullif(reloptions, '{}'), ', '), '=', ' = ') || E')\n',
      E'AS\n',
      rtrim(pg_get_viewdef(oid, true), ';')
    ),
    (
      SELECT string_agg(format('%I %s,', attname, format_type(atttypid, atttypmod)), ' ' ORDER BY attnum)
      FROM pg_attribute
      WHERE attrelid = relation.oid AND attnum > 0
    ),
    address,
    NULL,
    oid
  FROM relation
  WHERE relkind = 'v'
  UNION ALL
  SELECT
    'function',
    name,
    NULL,
    pg_get_functiondef(oid),
    concat_ws(' ', prokind, pg_get_function_result(oid), pg_get_function_identity_arguments(oid), pronargdefaults, ';'),
    address,
    NULL,
    oid
  FROM routine
  WHERE prokind IN ('f', 'p')
  UNION ALL
  SELECT
    'trigger',
    quote_ident(tgname),
    r.name,
    pg_get_triggerdef(t.oid, true),
    concat(tgconstraint <> 0, ';'),
    concat('trigger ', t.oid),
    r.address,
    t.oid
  FROM pg_trigger AS t
  JOIN relation AS r ON r.oid = t.tgrelid
  WHERE NOT tgisinternal
  UNION ALL
  SELECT
    'trigger state',
    quote_ident(tgname),
    r.name,
    CASE tgenabled WHEN 'O' THEN 'ENABLE' WHEN 'D' THEN 'DISABLE' WHEN 'R' THEN 'ENABLE REPLICA'
      ELSE 'ENABLE ALWAYS' END,
    NULL,
    NULL,
    concat('trigger ', t.oid),
    t.oid
  FROM pg_trigger AS t
  JOIN relation AS r ON r.oid = t.tgrelid
  WHERE NOT tgisinternal
  UNION ALL
  SELECT 'row level security', CASE f WHEN 1 THEN 'ENABLE' ELSE 'FORCE' END, name, '', NULL, NULL, address, f
  FROM relation
  CROSS JOIN generate_series(1, 2) AS f
  WHERE relkind = 'r' AND CASE f WHEN 1 THEN relrowsecurity ELSE relforcerowsecurity END
  UNION ALL
  SELECT
    'policy',
    quote_ident(polname),
    r.name,
    concat_ws(
      chr(31),
      CASE WHEN NOT polpermissive THEN 'AS RESTRICTIVE' END,
      CASE polcmd WHEN 'r' THEN 'FOR SELECT' WHEN 'a' THEN 'FOR INSERT' WHEN 'w' THEN 'FOR UPDATE'
        WHEN 'd' THEN 'FOR DELETE' ELSE 'FOR ALL' END,
      (
        SELECT concat(
          'TO ', string_agg(CASE role WHEN 0 THEN 'PUBLIC' ELSE role::regrole::text END, ', ' ORDER BY role)
        )
        FROM unnest(polroles) AS role
      ),
      'USING (' || pg_get_expr(polqual, polrelid, true) || ')',
      'WITH CHECK (' || pg_get_expr(polwithcheck, polrelid, true) || ')'
    ),
    NULL,
    concat('policy ', p.oid),
    r.address,
    p.oid
  FROM pg_policy AS p
  JOIN relation AS r ON r.oid = p.polrelid
  UNION ALL
  SELECT
    'publication',
    quote_ident(pubname),
    r.name,
    concat(
      (
        SELECT format(' (%s)', string_agg(quote_ident(attname), ', ' ORDER BY attnum))
        FROM pg_attribute
        WHERE attrelid = r.oid AND attnum = ANY (prattrs)
        HAVING count(*) > 0
      ),
      ' WHERE (' || pg_get_expr(prqual, prrelid, true) || ')'
    ),
    NULL,
    concat('publication ', m.oid),
    r.address,
    m.oid
  FROM pg_publication_rel AS m
  JOIN pg_publication AS p ON p.oid = prpubid
  JOIN relation AS r ON r.oid = prrelid
  WHERE pubname = ANY (CAST(:publications AS text[]))
    -- Of all tables, it lists those that it leaves out.
    AND NOT puballtables
    -- An upgrade cannot change a publication that another role owns.
    AND pg_has_role(coalesce((SELECT role FROM deployer), r.relowner), pubowner, 'USAGE')
  UNION ALL
  SELECT
    'owner',
    name,
    NULL,
    CASE owner WHEN (SELECT role FROM deployer) THEN 'the owner of schema oblivion' ELSE owner::regrole::text END,
    NULL,
    NULL,
    address,
    0
  FROM target
  WHERE owner IS NOT NULL
  UNION ALL
  SELECT
    'grant',
    concat(privilege_type, columns),
    target,
    concat_ws(
      ' ',
      CASE WHEN bool_or(is_grantable) THEN 'WITH GRANT OPTION' END,
      'GRANTED BY ' || string_agg(grantor::regrole::text, ', ' ORDER BY grantor) FILTER (WHERE grantor <> owner)
    ),
    g.name,
    NULL,
    address,
    attnum
  FROM privilege
  CROSS JOIN aclexplode(acl) AS granted
  JOIN grantee AS g ON g.oid = granted.grantee
  WHERE granted.grantee IS DISTINCT FROM owner
  GROUP BY privilege_type, columns, attnum, target, g.name, address
  UNION ALL
  SELECT 'comment', name, NULL, description, NULL, NULL, address, 0
  FROM target
  JOIN pg_description AS d ON d.classoid = class AND d.objoid = target.oid AND d.objsubid = 0
  UNION ALL
  SELECT
    'comment',
    format('COLUMN %s.%I', r.name, attname),
    NULL,
    description,
    NULL,
    NULL,
    CASE relkind WHEN 'v' THEN r.address ELSE format('column %s.%s', attrelid, attnum) END,
    attnum
  FROM pg_description AS d
  JOIN relation AS r ON d.classoid = 'pg_class'::regclass AND r.oid = d.objoid
  JOIN pg_attribute ON attrelid = r.oid AND attnum = d.objsubid
  WHERE relkind IN ('r', 'v')
  UNION ALL
  -- Kinds that the metadata cannot declare, so that these objects always belong to somebody else.
  SELECT
    'other',
    concat(
      CASE relkind WHEN 'm' THEN 'materialized view ' WHEN 'f' THEN 'foreign table ' WHEN 'p' THEN 'partitioned table '
        ELSE 'sequence ' END,
      name
    ),
    NULL, '', NULL, address, NULL, oid
  FROM relation
  WHERE relkind IN ('m', 'f', 'p', 'S')
    AND NOT (relkind = 'S' AND EXISTS (
      SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = relation.oid AND deptype = 'i'
    ))
  UNION ALL
  SELECT
    'other',
    concat(CASE prokind WHEN 'a' THEN 'aggregate ' ELSE 'window function ' END, name),
    NULL, '', NULL, address, NULL, oid
  FROM routine
  WHERE prokind NOT IN ('f', 'p')
  UNION ALL
  SELECT 'other', concat('type ', format_type(t.oid, NULL)), NULL, '', NULL, NULL, NULL, t.oid
  FROM pg_type AS t
  JOIN namespace AS n ON n.oid = t.typnamespace
  LEFT JOIN pg_class AS c ON c.oid = t.typrelid
  WHERE (typtype IN ('d', 'e', 'r') OR c.relkind = 'c')
    AND NOT EXISTS (SELECT FROM extension_member WHERE classid = 'pg_type'::regclass AND objid = t.oid)
  UNION ALL
  SELECT 'other', format('default of view column %s.%I', r.name, attname), NULL, '', NULL, NULL, r.address, attnum
  FROM pg_attribute
  JOIN relation AS r ON r.oid = attrelid
  WHERE relkind = 'v' AND atthasdef
  UNION ALL
  SELECT DISTINCT
    'other',
    format('disabled triggers of %I on %s', conname, r.name),
    NULL, '', NULL, NULL, r.address, t.tgconstraint::bigint
  FROM pg_trigger AS t
  JOIN relation AS r ON r.oid = t.tgrelid
  JOIN pg_constraint AS c ON c.oid = t.tgconstraint
  WHERE tgisinternal AND tgenabled <> 'O'
  UNION ALL
  SELECT
    'other',
    format('inheritance of %s from %s', r.name, inhparent::regclass),
    NULL, '', NULL, format('inheritance %s.%s', inhrelid, inhparent), r.address, r.oid
  FROM pg_inherits
  JOIN relation AS r ON r.oid = inhrelid
  WHERE NOT relispartition
  UNION ALL
  SELECT 'other', format('OF %s of %s', reloftype::regtype, name), NULL, '', NULL, NULL, address, oid
  FROM relation
  WHERE relkind = 'r' AND reloftype <> 0
  UNION ALL
  SELECT
    'other', format('NO INHERIT of NOT NULL of %s.%s', on_name, own_name), NULL, '', NULL, NULL, relation_address, attnum
  FROM attribute
  WHERE connoinherit
  UNION ALL
  SELECT
    'other',
    format('%s %s of identity %s.%s', CASE relname WHEN named THEN 'UNLOGGED sequence' ELSE 'sequence' END, seqrelid::regclass, on_name, own_name),
    NULL, '', NULL, NULL, relation_address, seqrelid
  FROM (
    SELECT identity.*, s.relname, s.relpersistence, t.relpersistence AS of_table,
      concat(t.relname, '_', attname, '_seq') AS named
    FROM identity
    JOIN pg_class AS s ON s.oid = seqrelid
    JOIN pg_class AS t ON t.oid = attrelid
  ) AS s
  -- PostgreSQL cuts longer names in its own way.
  WHERE (relname <> named AND octet_length(named) < 64) OR relpersistence <> of_table
  UNION ALL
  SELECT
    'other',
    format('dependence of %s on an extension', pg_describe_object(d.classid, d.objid, d.objsubid)),
    NULL, '', NULL, NULL, f.address, d.objid
  FROM pg_depend AS d
  JOIN (
    SELECT 'pg_proc'::regclass AS class, oid, address FROM routine
    UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid, r.address FROM pg_trigger AS t JOIN relation AS r ON r.oid = tgrelid
    UNION ALL
    SELECT 'pg_class'::regclass, indexrelid, r.address FROM pg_index JOIN relation AS r ON r.oid = indrelid
  ) AS f ON f.class = d.classid AND f.oid = d.objid
  WHERE deptype = 'x'
  UNION ALL
  SELECT
    'other',
    format('statistics object %s.%I on %s', n.nspname, stxname, r.name),
    NULL, '', NULL, NULL, r.address, s.oid
  FROM pg_statistic_ext AS s
  JOIN relation AS r ON r.oid = stxrelid
  JOIN pg_namespace AS n ON n.oid = stxnamespace
  UNION ALL
  SELECT
    'other', format('rule %I on %s', rulename, r.name), NULL, '', NULL, concat('rule ', w.oid), r.address, w.oid
  FROM pg_rewrite AS w
  JOIN relation AS r ON r.oid = w.ev_class
  WHERE rulename <> '_RETURN' OR ev_enabled <> 'O'
  UNION ALL
  SELECT 'other', concat(i.type, ' ', i.identity), NULL, '', NULL, NULL, NULL, o.oid
  FROM (
    SELECT 'pg_collation'::regclass AS class, oid, collnamespace AS namespace FROM pg_collation
    UNION ALL SELECT 'pg_conversion'::regclass, oid, connamespace FROM pg_conversion
    UNION ALL SELECT 'pg_operator'::regclass, oid, oprnamespace FROM pg_operator
    UNION ALL SELECT 'pg_opclass'::regclass, oid, opcnamespace FROM pg_opclass
    UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfnamespace FROM pg_opfamily
    UNION ALL SELECT 'pg_ts_config'::regclass, oid, cfgnamespace FROM pg_ts_config
    UNION ALL SELECT 'pg_ts_dict'::regclass, oid, dictnamespace FROM pg_ts_dict
    UNION ALL SELECT 'pg_ts_parser'::regclass, oid, prsnamespace FROM pg_ts_parser
    UNION ALL SELECT 'pg_ts_template'::regclass, oid, tmplnamespace FROM pg_ts_template
  ) AS o
  JOIN namespace AS n ON n.oid = o.namespace
  CROSS JOIN LATERAL pg_identify_object(o.class, o.oid, 0) AS i
  WHERE NOT EXISTS (SELECT FROM extension_member WHERE classid = o.class AND objid = o.oid)
),
-- How an address names an object of each system catalog.
class AS (
  SELECT 'pg_class'::regclass AS class, 'relation' AS name
  UNION ALL SELECT 'pg_proc'::regclass, 'function'
  UNION ALL SELECT 'pg_constraint'::regclass, 'constraint'
  UNION ALL SELECT 'pg_trigger'::regclass, 'trigger'
  UNION ALL SELECT 'pg_policy'::regclass, 'policy'
  UNION ALL SELECT 'pg_rewrite'::regclass, 'rule'
  UNION ALL SELECT 'pg_attrdef'::regclass, 'default'
  UNION ALL SELECT 'pg_namespace'::regclass, 'schema'
  UNION ALL SELECT 'pg_publication_rel'::regclass, 'publication'
),
-- pg_depend, with the addresses of found: a view for its rewrite rule, a generated column for its expression, a
-- constraint for its index, a table for its row type or an array of it.
need AS (
  SELECT
    CASE
      WHEN w.ev_class IS NOT NULL AND rulename = '_RETURN' THEN concat('relation ', w.ev_class)
      WHEN d.classid = 'pg_attrdef'::regclass AND g.adrelid IS NOT NULL THEN format('column %s.%s', g.adrelid, g.adnum)
      WHEN d.objsubid > 0 THEN format('column %s.%s', d.objid, d.objsubid)
      ELSE concat(coalesce(c.name, d.classid::regclass::text), ' ', d.objid)
    END AS address,
    CASE
      WHEN k.oid IS NOT NULL THEN concat('constraint ', k.oid)
      WHEN coalesce(t.typrelid, 0) <> 0 THEN concat('relation ', t.typrelid)
      WHEN d.refobjsubid > 0 THEN format('column %s.%s', d.refobjid, d.refobjsubid)
      ELSE concat(p.name, ' ', d.refobjid)
    END AS needed,
    CASE WHEN rulename = '_RETURN' THEN 'pg_class'::regclass ELSE d.classid END AS class,
    CASE WHEN rulename = '_RETURN' THEN w.ev_class ELSE d.objid END AS oid,
    d.objsubid,
    d.deptype
  FROM pg_depend AS d
  LEFT JOIN class AS c ON c.class = d.classid
  LEFT JOIN class AS p ON p.class = d.refclassid
  LEFT JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
  LEFT JOIN (
    SELECT pg_attrdef.oid, adrelid, adnum
    FROM pg_attrdef
    JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum AND attgenerated <> ''
  ) AS g ON d.classid = 'pg_attrdef'::regclass AND g.oid = d.objid
  LEFT JOIN pg_constraint AS k
    ON d.refclassid = 'pg_class'::regclass AND k.conindid = d.refobjid AND k.contype IN ('p', 'u', 'x')
  LEFT JOIN LATERAL (
    SELECT coalesce(e.typrelid, b.typrelid) AS typrelid
    FROM pg_type AS b
    LEFT JOIN pg_type AS e ON e.oid = b.typelem AND e.typrelid <> 0
    WHERE d.refclassid = 'pg_type'::regclass AND b.oid = d.refobjid
  ) AS t ON true
  WHERE d.deptype IN ('n', 'a')
    -- Below it are PostgreSQL's own objects.
    AND d.refobjid >= 16384
  UNION ALL
  SELECT
    format('setting %s of %s', setting, table_oid),
    coalesce('constraint ' || k.oid, concat('relation ', indexrelid)),
    NULL,
    NULL,
    NULL,
    NULL
  FROM named_index
  CROSS JOIN LATERAL (VALUES ('cluster', indisclustered), ('replica identity', indisreplident)) AS s (setting, names_it)
  LEFT JOIN pg_constraint AS k ON k.conindid = indexrelid AND k.conrelid = table_oid AND k.contype IN ('p', 'u', 'x')
  WHERE names_it
  UNION ALL
  SELECT format('inheritance %s.%s', inhrelid, inhparent), concat('relation ', inhparent), NULL, NULL, NULL, NULL
  FROM pg_inherits
),
-- What needs anything; whole is its address in found, where a column has that of its table or view.
needing AS (
  SELECT *, CASE class WHEN 'pg_class'::regclass THEN concat('relation ', oid) ELSE address END AS whole
  FROM need
  WHERE deptype = 'n' AND oid >= 16384
),
-- Whatever else PostgreSQL would not let lose what it needs, in any schema; the shape is its system catalog.
dependent AS (
  SELECT 'dependent' AS kind, pg_describe_object(class, oid, objsubid) AS own_name, class::regclass::text AS shape, address
  FROM needing
  WHERE needed IN (SELECT address FROM found WHERE kind <> 'schema')
    -- NOT IN and joins take the square of their time in a schema with thousands of objects.
    AND whole IN (SELECT whole FROM needing EXCEPT SELECT address FROM found)
  GROUP BY class, oid, objsubid, address
)
SELECT o.*, needs
FROM (
  SELECT * FROM found
  UNION ALL
  SELECT kind, own_name, NULL, '', shape, address, NULL, 0 FROM dependent
) AS o
LEFT JOIN (
  SELECT address, array_agg(DISTINCT needed) AS needs
  FROM need
  WHERE needed <> address
  GROUP BY address
) AS n USING (address)
ORDER BY kind, on_name, own_name, shape
