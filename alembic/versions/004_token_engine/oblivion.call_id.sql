CREATE FUNCTION oblivion.call_id(session_id text)
RETURNS uuid
LANGUAGE plpgsql
IMMUTABLE
SET search_path = ''
AS $$
BEGIN
  RETURN CASE WHEN session_id ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN session_id::pg_catalog.uuid END;
END
$$;

COMMENT ON FUNCTION oblivion.call_id(text) IS
  'The call that token_usage.session_id names; NULL for text that is not the id of a call.';
