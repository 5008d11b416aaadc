-- Grants say it, too. They are lost where a database is restored without privileges: then PUBLIC may execute functions.
CREATE FUNCTION oblivion.refuse_pages()
RETURNS void
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  IF oblivion.is_page() THEN
    RAISE insufficient_privilege
      USING MESSAGE = 'Only service_role and the owner may do that',
        HINT = 'If anon and authenticated may execute this function, run: oblivion-schema access open|authenticated';
  END IF;
END
$$;

COMMENT ON FUNCTION oblivion.refuse_pages() IS
  'Raises an error in the session of a page, whatever privileges it has.';
