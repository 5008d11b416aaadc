-- Checks that no row holds a NULL; nobody waits.
DO $$
DECLARE
<there>
BEGIN
  PERFORM set_config('oblivion.prepared', '', false);
  IF there IS NULL THEN
    RETURN;
  END IF;
  PERFORM set_config('lock_timeout', '<lock_timeout>', true);
  ALTER TABLE public.<table> VALIDATE CONSTRAINT <table>_prepared_check;
  PERFORM set_config('oblivion.prepared', 'public.<table>: checked that no row holds one', false);
  RAISE NOTICE '%', current_setting('oblivion.prepared');
END
$$
