CREATE OR REPLACE FUNCTION oblivion.current_user_id()
RETURNS text
LANGUAGE plpgsql
STABLE PARALLEL UNSAFE
SET search_path = ''
AS $$
DECLARE
  sub pg_catalog.jsonb;
BEGIN
  sub = current_setting('request.jwt.claims', true)::pg_catalog.jsonb -> 'sub';
  RETURN CASE WHEN jsonb_typeof(sub) = 'string' THEN nullif(sub #>> '{}', '') END;
EXCEPTION
  WHEN OTHERS THEN
    RETURN NULL;
END
$$;
