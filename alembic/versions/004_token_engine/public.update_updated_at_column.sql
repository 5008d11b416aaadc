-- clock_timestamp(), not now(): updated_at is the time when a metered call was last seen, and a reaped call is billed
-- up to it.
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
