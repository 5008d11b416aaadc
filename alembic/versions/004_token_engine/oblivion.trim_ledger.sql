CREATE FUNCTION oblivion.trim_ledger(before timestamp with time zone)
RETURNS bigint
LANGUAGE sql
SET search_path TO ''
BEGIN ATOMIC
SELECT pg_advisory_xact_lock(hashtextextended('oblivion.trim_ledger'::text, (0)::bigint)) AS pg_advisory_xact_lock;
WITH past AS (
          SELECT l.user_id,
             max(l.id) AS last
            FROM public.token_ledger l
           WHERE (l.created_at < trim_ledger.before)
           GROUP BY l.user_id
          HAVING (count(*) > 1)
         ), trimmed AS (
          DELETE FROM public.token_ledger l
            USING past p
           WHERE ((l.user_id = p.user_id) AND (l.id <= p.last))
           RETURNING l.user_id,
             l.id,
             l.created_at,
             l.balance,
             (l.id = p.last) AS is_last
         ), carried AS (
          INSERT INTO public.token_ledger (user_id, id, created_at, kind, tokens, balance) OVERRIDING SYSTEM VALUE  SELECT t.user_id,
                     t.id,
                     t.created_at,
                     'carried',
                     t.balance,
                     t.balance
                    FROM trimmed t
                   WHERE t.is_last
           RETURNING 1 AS "?column?"
         )
  SELECT (( SELECT count(*) AS count
            FROM trimmed) - ( SELECT count(*) AS count
            FROM carried));
END;
