-- The identity columns of the tables :tables that this role may look at, and the statements that look for the newest row
-- and for the number that was given last.
SELECT
  identity,
  newest,
  format('SELECT coalesce(pg_sequence_last_value(%L::regclass), 0)', sequence) AS last
FROM (
  SELECT
    format('%I.%I.%I', n.nspname, c.relname, a.attname) AS identity,
    format('SELECT max(%I) FROM %I.%I', a.attname, n.nspname, c.relname) AS newest,
    pg_get_serial_sequence(format('%I.%I', n.nspname, c.relname), a.attname) AS sequence
  FROM pg_attribute AS a
  JOIN pg_class AS c ON c.oid = a.attrelid
  JOIN pg_namespace AS n ON n.oid = c.relnamespace
  WHERE a.attidentity <> '' AND format('%s.%s', n.nspname, c.relname) = ANY (CAST(:tables AS text[]))
) AS identities
WHERE has_sequence_privilege(sequence, 'USAGE') OR has_sequence_privilege(sequence, 'SELECT')
ORDER BY 1
