CREATE OR REPLACE FUNCTION public.update_updated_at_column()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  NEW.updated_at = now();
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION public.update_updated_at_column() IS 'Trigger: sets updated_at to the server''s clock.';
