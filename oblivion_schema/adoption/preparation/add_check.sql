-- Lets no new row hold a NULL.
DO $$
DECLARE
<there>
BEGIN
  PERFORM set_config('oblivion.prepared', '', false);
  IF there IS NULL OR EXISTS (
    SELECT FROM pg_catalog.pg_constraint WHERE conrelid = there AND conname = '<table>_prepared_check'
  ) THEN
    RETURN;
  END IF;
  PERFORM set_config('lock_timeout', '<lock_timeout>', true);
  ALTER TABLE public.<table> ADD CONSTRAINT <table>_prepared_check CHECK (<no_nulls>) NOT VALID;
  PERFORM set_config('oblivion.prepared', 'public.<table>: no new row may hold a NULL in these columns', false);
  RAISE NOTICE '%', current_setting('oblivion.prepared');
END
$$
