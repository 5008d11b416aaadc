-- Tables that a publication publishes updates or deletions of, although no key tells the subscriber which row it is:
-- every UPDATE and DELETE of theirs fails.
SELECT DISTINCT format('%I.%I', t.schemaname, t.tablename) AS name, t.pubname AS publication
FROM pg_publication_tables AS t
JOIN pg_publication AS p ON p.pubname = t.pubname AND (p.pubupdate OR p.pubdelete)
JOIN pg_class AS c ON c.oid = format('%I.%I', t.schemaname, t.tablename)::regclass
WHERE format('%s.%s', t.schemaname, t.tablename) = ANY (CAST(:tables AS text[]))
  AND NOT (
    c.relreplident = 'f'
    OR c.relreplident = 'd' AND EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary AND indisvalid)
    OR c.relreplident = 'i' AND EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisreplident AND indisvalid)
  )
ORDER BY 1, 2
