-- One row for each table or view of schema public named in :names, with all that decides what an upgrade makes of it.
-- PostgreSQL prints short names because search_path is public.
WITH owner_of_ours AS (
  SELECT coalesce(
    (SELECT nspowner FROM pg_namespace WHERE nspname = 'oblivion'),
    (SELECT oid FROM pg_roles WHERE rolname = current_user)
  ) AS role
)
SELECT
  c.oid,
  c.relname AS name,
  c.relkind = 'v' AS is_view,
  c.relkind = 'r' AND c.relpersistence = 'p' AS is_ordinary,
  c.relowner::regrole::text AS owner,
  c.relowner = owner_of_ours.role AS is_ours,
  pg_has_role(c.relowner, 'USAGE') AS may_alter,
  has_table_privilege(c.oid, 'SELECT') AS may_read,
  coalesce(obj_description(c.oid, 'pg_class'), '') AS comment,
  c.relforcerowsecurity AS forced,
  row_security_active(c.oid) AS sees_some_rows,
  -- Of a table that was never analyzed nothing is known but its size.
  coalesce(CASE WHEN c.reltuples < 0 THEN pg_relation_size(c.oid) / 100 ELSE c.reltuples END, 0)::bigint AS rows,
  CASE WHEN c.relkind = 'r' THEN pg_relation_size(c.oid) ELSE 0 END AS bytes,
  (
    SELECT coalesce(jsonb_object_agg(attname, jsonb_build_object(
      'place', attnum,
      'type', format_type(atttypid, atttypmod),
      'type_oid', atttypid::bigint,
      -- Since 18 old rows may break NOT NULL.
      'nullable', NOT attnotnull OR EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = c.oid AND contype = 'n' AND conkey = ARRAY[attnum] AND NOT convalidated
      ),
      'default', pg_get_expr(adbin, adrelid)
    )), '{}')
    FROM pg_attribute
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
  ) AS columns,
  (
    SELECT coalesce(jsonb_object_agg(conname, jsonb_build_object(
      'definition', pg_get_constraintdef(oid), 'valid', convalidated, 'kind', contype,
      'expression', pg_get_expr(conbin, conrelid)
    )), '{}')
    FROM pg_constraint
    WHERE conrelid = c.oid
  ) AS constraints,
  (
    SELECT coalesce(jsonb_object_agg(i.relname, jsonb_build_object(
      'definition', pg_get_indexdef(indexrelid),
      'valid', indisvalid,
      'unique_on', CASE WHEN indisunique AND indpred IS NULL AND indnkeyatts = 1 THEN (
        SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = indkey[0]
      ) END
    )), '{}')
    FROM pg_index
    JOIN pg_class AS i ON i.oid = indexrelid
    WHERE indrelid = c.oid
  ) AS indexes,
  ARRAY(SELECT tgname::text FROM pg_trigger WHERE tgrelid = c.oid AND NOT tgisinternal ORDER BY 1) AS triggers,
  (
    SELECT coalesce(jsonb_object_agg(polname, jsonb_build_object(
      'permissive', polpermissive,
      'as_made', CASE WHEN polpermissive AND polroles = '{0}' THEN concat_ws(
        ' ', polcmd, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)
      ) END
    )), '{}')
    FROM pg_policy
    WHERE polrelid = c.oid
  ) AS policies,
  ARRAY(
    SELECT pubname::text FROM pg_publication_rel JOIN pg_publication AS p ON p.oid = prpubid WHERE prrelid = c.oid
  ) AS publications,
  EXISTS (SELECT FROM pg_constraint WHERE confrelid = c.oid) AS is_referred_to,
  (SELECT option_value FROM pg_options_to_table(reloptions) WHERE option_name = 'fillfactor') AS fillfactor,
  'security_invoker=true' = ANY (coalesce(reloptions, '{}')) AS is_invoker,
  -- What reads a view, and would have to go before it.
  ARRAY(
    SELECT DISTINCT coalesce(w.ev_class::regclass::text, pg_describe_object(d.classid, d.objid, d.objsubid))
    FROM pg_depend AS d
    LEFT JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
    WHERE c.relkind = 'v' AND d.deptype = 'n' AND w.ev_class IS DISTINCT FROM c.oid AND (
      (d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid)
      OR (
        d.refclassid = 'pg_type'::regclass
        AND d.refobjid IN (SELECT unnest(ARRAY[oid, typarray]) FROM pg_type WHERE oid = c.reltype)
      )
    )
    ORDER BY 1
  ) AS readers,
  ARRAY(
    SELECT DISTINCT privilege_type FROM aclexplode(relacl) WHERE grantee = 0 ORDER BY 1
  ) AS given_to_public,
  -- Roles that may read a view, but not all that it reads.
  (
    SELECT coalesce(jsonb_object_agg(role, lacks), '{}')
    FROM (
      SELECT granted.grantee::regrole::text AS role, array_agg(DISTINCT d.refobjid::regclass::text) AS lacks
      FROM aclexplode(c.relacl) AS granted
      JOIN pg_rewrite AS w ON w.ev_class = c.oid
      JOIN pg_depend AS d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
        AND d.refclassid = 'pg_class'::regclass AND d.refobjid <> c.oid AND d.refobjsubid > 0
      WHERE c.relkind = 'v' AND granted.privilege_type = 'SELECT' AND granted.grantee NOT IN (0, c.relowner)
        AND granted.grantee::regrole::text NOT IN ('anon', 'authenticated', 'service_role')
        AND NOT has_column_privilege(granted.grantee, d.refobjid, d.refobjsubid::smallint, 'SELECT')
      GROUP BY granted.grantee
    ) AS roles
  ) AS readers_without_rights
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN owner_of_ours
WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND c.relname = ANY (CAST(:names AS text[]))
ORDER BY c.relname
