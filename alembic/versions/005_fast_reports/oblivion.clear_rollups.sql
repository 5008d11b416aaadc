-- TRUNCATE fires no trigger of a row; and like it, this looks at no snapshot.
CREATE FUNCTION oblivion.clear_rollups()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF TG_TABLE_NAME = 'token_usage' THEN
    TRUNCATE oblivion.usage_deltas, oblivion.daily_usage, oblivion.user_usage;
  ELSE
    TRUNCATE oblivion.call_deltas, oblivion.daily_calls;
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.clear_rollups() IS 'Trigger: empties what stood for the rows of a table.';
