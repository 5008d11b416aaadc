CREATE OR REPLACE FUNCTION oblivion.is_service_role()
RETURNS boolean
LANGUAGE plpgsql
IMMUTABLE PARALLEL SAFE
SET search_path = ''
AS $$
BEGIN
  RETURN current_user = 'service_role';
END
$$;
