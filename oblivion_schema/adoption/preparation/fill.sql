-- Fills NULLs, some pages in each transaction; each row is looked at once. Triggers would stamp the rows, so they are
-- off in a transaction that fills some. Writers wait for that, readers do not.
DO $$
DECLARE
<there>
  first_page tid;
  next_page tid;
  found boolean;
  hold text;
  release text;
  more bigint;
  filled bigint := 0;
  pages CONSTANT integer := pg_relation_size(there) / current_setting('block_size')::integer;
  application CONSTANT text := current_setting('application_name');
BEGIN
  PERFORM set_config('oblivion.prepared', '', false);
  IF there IS NULL THEN
    RETURN;
  END IF;
  FOR page IN 0 .. pages BY <pages> LOOP
    -- pg_stat_activity shows it to whoever waits.
    PERFORM set_config('application_name', format('oblivion-schema: <table>, page %s of %s', page, pages), false);
    first_page := format('(%s,0)', page);
    next_page := format('(%s,0)', page + <pages>);
    found := EXISTS (SELECT FROM public.<table> WHERE ctid >= first_page AND ctid < next_page AND (<nulls>));
    COMMIT;
    CONTINUE WHEN NOT found;
    PERFORM set_config('lock_timeout', '<lock_timeout>', true);
    LOCK TABLE public.<table> IN SHARE ROW EXCLUSIVE MODE;
    SELECT
      string_agg(format('DISABLE TRIGGER %I', tgname), ', '),
      string_agg(format(
        'ENABLE %s TRIGGER %I', CASE tgenabled WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' END, tgname
      ), ', ')
    INTO hold, release
    FROM pg_catalog.pg_trigger
    WHERE tgrelid = there AND NOT tgisinternal AND tgenabled <> 'D';
    IF hold IS NOT NULL THEN
      EXECUTE 'ALTER TABLE public.<table> ' || hold;
    END IF;
    UPDATE public.<table> SET <assignments>
    WHERE ctid >= first_page AND ctid < next_page AND (<nulls>);
    GET DIAGNOSTICS more = ROW_COUNT;
    filled := filled + more;
    IF release IS NOT NULL THEN
      EXECUTE 'ALTER TABLE public.<table> ' || release;
    END IF;
    COMMIT;
  END LOOP;
  PERFORM set_config('application_name', application, false);
  IF filled > 0 THEN
    PERFORM set_config('oblivion.prepared', format('public.<table>: filled the NULLs of %s rows', filled), false);
    RAISE NOTICE '%', current_setting('oblivion.prepared');
  END IF;
END
$$
