-- Asks nothing of Supabase's schema auth, so that plain PostgreSQL answers, too. Claims that are no JSON, or too deep for
-- its parser, are nobody's: an error here would fail every request, for it would come from every policy.
CREATE OR REPLACE FUNCTION oblivion.current_user_id()
RETURNS text
LANGUAGE plpgsql
STABLE PARALLEL RESTRICTED
SET search_path = ''
AS $$
DECLARE
  sub jsonb;
BEGIN
  sub = current_setting('request.jwt.claims', true)::jsonb -> 'sub';
  RETURN CASE WHEN jsonb_typeof(sub) = 'string' THEN nullif(sub #>> '{}', '') END;
EXCEPTION
  WHEN OTHERS THEN
    RETURN NULL;
END
$$;
