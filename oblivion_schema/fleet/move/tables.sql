-- Of tables of ours what keeps them from being moved: no row if nothing does.
SELECT c.oid::regclass::text AS name, w.why
FROM pg_class AS c
CROSS JOIN LATERAL (
  SELECT 'another role owns it: connect as its owner' AS why
  WHERE NOT pg_has_role(c.relowner, 'USAGE')
  UNION ALL
  SELECT format('it has no replica identity: ALTER TABLE %s REPLICA IDENTITY DEFAULT', c.oid::regclass)
  WHERE c.relreplident <> 'f' AND pg_get_replica_identity_index(c.oid) IS NULL
  UNION ALL
  SELECT 'row level security hides rows from this role: connect as its owner'
  WHERE row_security_active(c.oid)
  UNION ALL
  SELECT 'it is not logged, so that it cannot be replicated: ALTER TABLE ... SET LOGGED'
  WHERE c.relpersistence <> 'p'
  UNION ALL
  SELECT format('its column %s is not ours: the target would not have it', string_agg(a.attname, ', '))
  FROM pg_attribute AS a
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    AND NOT a.attname = ANY (string_to_array(CAST(:columns AS json) ->> CAST(c.oid::regclass AS text), ' '))
  HAVING count(*) > 0
) AS w
WHERE c.oid = ANY (CAST(:tables AS regclass[]))
ORDER BY 1, 2
