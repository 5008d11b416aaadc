-- For a trigger on auth.users, which is Supabase's table. Whatever happens here, the user signs up there.
CREATE FUNCTION oblivion.open_account_of_user()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
SET lock_timeout = '1s'
AS $$
DECLARE
  new_user pg_catalog.jsonb;
BEGIN
  new_user := to_jsonb(NEW);
  IF (TG_TABLE_SCHEMA, TG_TABLE_NAME) = ('auth', 'users') THEN
    PERFORM oblivion.make_account(new_user ->> 'id', new_user ->> 'email', new_user ->> 'is_anonymous' = 'true');
  END IF;
  RETURN NULL;
EXCEPTION
  WHEN OTHERS THEN
    RAISE WARNING 'User % got no account (%: %): open_account() opens it', new_user ->> 'id', SQLSTATE, SQLERRM;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.open_account_of_user() IS
  'Trigger for auth.users: opens the account of each new user, as open_account() does. A failure is a warning.';
