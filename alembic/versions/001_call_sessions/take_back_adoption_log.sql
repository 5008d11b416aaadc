-- A downgrade moves the log to schema public if it holds rows that were moved to it.
DO $$
BEGIN
  IF to_regclass('oblivion.adoption_log') IS NULL
    AND obj_description(to_regclass('public.adoption_log'), 'pg_class')
      = 'What upgrades found in tables that were made by hand, and what became of it.'
  THEN
    ALTER TABLE public.adoption_log SET SCHEMA oblivion;
    ALTER TABLE oblivion.adoption_log DISABLE ROW LEVEL SECURITY;
  END IF;
END
$$;
