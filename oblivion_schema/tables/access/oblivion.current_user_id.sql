-- Does not use Supabase's schema auth, so it works on plain PostgreSQL too.
-- Claims that are not JSON, or too deeply nested for PostgreSQL's parser, mean that nobody is signed in. An error here
-- would fail every request, because every policy calls this function.
-- PARALLEL UNSAFE: up to PostgreSQL 16 a parallel query cannot enter a block with an exception handler.
-- Types are qualified: even with an empty search_path PostgreSQL finds types that a session created in pg_temp.
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

COMMENT ON FUNCTION oblivion.current_user_id() IS
  'The signed-in user: claim sub of the JWT; NULL if it is missing, empty or not a string.';
