-- What the server and the role allow, in one row.
SELECT
  s.oid IS NOT NULL AS has_schema,
  pg_get_userbyid(s.nspowner) AS schema_owner,
  pg_has_role(s.nspowner, 'USAGE') AS owns_schema,
  v.oid IS NOT NULL AS has_version_table,
  coalesce(has_schema_privilege(s.oid, 'USAGE') AND has_table_privilege(v.oid, 'SELECT'), false) AS may_read_version,
  has_database_privilege(current_database(), 'CREATE') AS may_create_schema,
  has_schema_privilege('public', 'CREATE') AS may_create_in_public,
  (SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user) AS may_create_roles,
  pg_is_in_recovery() OR (
    SELECT reset_val = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only'
  ) AS is_read_only,
  ARRAY(SELECT rolname FROM pg_roles WHERE rolname = ANY (CAST(:roles AS text[]))) AS api_roles,
  ARRAY(
    SELECT pubname FROM pg_publication WHERE NOT puballtables AND pg_has_role(pubowner, 'USAGE')
  ) AS publications,
  obj_description(to_regclass('public.adoption_log'), 'pg_class') AS comment_of_old_log
FROM (VALUES (1)) AS one
LEFT JOIN pg_namespace AS s ON s.nspname = 'oblivion'
LEFT JOIN pg_class AS v ON v.relnamespace = s.oid AND v.relname = 'alembic_version'
