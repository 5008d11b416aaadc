-- Row level security does not stop TRUNCATE, and where privileges were opened nothing else does.
CREATE OR REPLACE FUNCTION oblivion.bar_truncate()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  PERFORM oblivion.refuse_pages();
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.bar_truncate() IS 'Trigger: a page empties no table, whatever privileges it has.';
