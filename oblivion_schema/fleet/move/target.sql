-- What the target has to have: one row. Each table that is copied takes an origin and a worker besides those of the
-- subscription. Before version 18 there were as many origins as slots.
SELECT
  r.rolname AS role,
  current_setting('server_version_num')::integer / 10000 AS major,
  pg_is_in_recovery() AS is_standby,
  r.rolsuper AS is_superuser,
  has_database_privilege(current_database(), 'CREATE') AS may_create,
  r.rolsuper OR coalesce(
    (SELECT pg_has_role(s.oid, 'USAGE') FROM pg_roles AS s WHERE s.rolname = 'pg_create_subscription'), false
  ) AS may_subscribe,
  coalesce(
    current_setting('max_active_replication_origins', true), current_setting('max_replication_slots')
  )::integer - (SELECT count(*) FROM pg_replication_origin) AS origins,
  current_setting('max_logical_replication_workers')::integer
  - (SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'logical replication%worker') AS workers
FROM pg_roles AS r
WHERE r.rolname = current_user
