DO $$
BEGIN
  DROP FUNCTION public.update_updated_at_column();
EXCEPTION
  WHEN dependent_objects_still_exist THEN
    NULL;
END
$$;
