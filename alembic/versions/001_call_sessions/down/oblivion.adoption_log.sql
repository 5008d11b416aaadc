-- Rows that were moved there are users' data, so they outlive the schema.
DO $$
BEGIN
  DELETE FROM oblivion.adoption_log WHERE kind <> 'row';
  IF EXISTS (SELECT FROM oblivion.adoption_log) THEN
    ALTER TABLE oblivion.adoption_log ENABLE ROW LEVEL SECURITY;
    ALTER TABLE oblivion.adoption_log SET SCHEMA public;
  ELSE
    DROP TABLE oblivion.adoption_log;
  END IF;
END
$$;
