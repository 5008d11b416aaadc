-- For functions that run as the owner, where current_user says nothing. A WHEN condition of their triggers could ask
-- current_user, but it would be parsed on each statement, which costs more than to ask another role than the owner here.
CREATE OR REPLACE FUNCTION oblivion.is_page()
RETURNS boolean
LANGUAGE plpgsql
STABLE
SET search_path = ''
AS $$
BEGIN
  RETURN coalesce(nullif(current_setting('role'), 'none'), session_user) IN ('anon', 'authenticated');
END
$$;

COMMENT ON FUNCTION oblivion.is_page() IS 'Whether a page made the request: whether its role is anon or authenticated.';
