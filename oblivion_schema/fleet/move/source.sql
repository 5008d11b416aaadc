-- What the source has to have: one row.
SELECT
  r.rolname AS role,
  current_setting('server_version_num')::integer / 10000 AS major,
  pg_is_in_recovery() AS is_standby,
  current_setting('wal_level') AS wal_level,
  current_setting('max_replication_slots')::integer - (SELECT count(*) FROM pg_replication_slots) AS slots,
  current_setting('max_wal_senders')::integer
  - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender') AS senders,
  r.rolsuper OR r.rolreplication AS may_replicate,
  has_database_privilege(current_database(), 'CREATE') AS may_create,
  (
    SELECT string_agg(s.subname, ', ')
    FROM pg_subscription AS s
    JOIN pg_database AS d ON d.oid = s.subdbid
    WHERE d.datname = current_database()
  ) AS subscriptions
FROM pg_roles AS r
WHERE r.rolname = current_user
