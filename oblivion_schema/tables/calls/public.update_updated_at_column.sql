-- clock_timestamp(), not now(): updated_at is the time of the change, however long ago its transaction began.
CREATE OR REPLACE FUNCTION public.update_updated_at_column()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  NEW.updated_at = clock_timestamp();
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION public.update_updated_at_column() IS 'Trigger: sets updated_at to the server''s clock.';
