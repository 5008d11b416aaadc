-- TRUNCATE fires no row triggers. This truncates the roll-ups too, instead of deleting their rows: like TRUNCATE of the
-- table, it does not depend on a snapshot.
CREATE OR REPLACE FUNCTION oblivion.clear_rollups()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  IF TG_RELID = 'public.token_usage'::pg_catalog.regclass THEN
    TRUNCATE oblivion.usage_deltas, oblivion.daily_usage, oblivion.user_usage;
  ELSIF TG_RELID = 'public.call_sessions'::pg_catalog.regclass THEN
    TRUNCATE oblivion.call_deltas, oblivion.daily_calls;
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.clear_rollups() IS 'Trigger: empties the roll-ups and deltas of a table after TRUNCATE.';
