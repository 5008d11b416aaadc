-- Asks nothing of Supabase's schema auth, so that plain PostgreSQL answers, too. Claims that are no JSON, or too deep for
-- its parser, are nobody's: an error here would fail every request, for it would come from every policy.
-- PARALLEL UNSAFE, for up to 16 no block that handles errors may be entered while a query runs in parallel. Types are
-- qualified, for an empty search_path still finds those that a session made in pg_temp.
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

COMMENT ON FUNCTION oblivion.current_user_id() IS 'Who is signed in: sub of the JWT, or NULL where that is no text.';
