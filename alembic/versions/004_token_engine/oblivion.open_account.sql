CREATE FUNCTION oblivion.open_account(OUT user_id text, OUT status text, OUT balance integer)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  user_id := oblivion.current_user_id();
  IF user_id IS NULL THEN
    RAISE insufficient_privilege
      USING MESSAGE = 'Nobody is signed in', HINT = 'Send the JWT of the user, with its claim sub';
  END IF;
  SELECT m.status, m.balance INTO status, balance FROM oblivion.make_account(
    user_id, NULL, is_anonymous => current_setting('request.jwt.claims')::pg_catalog.jsonb ->> 'is_anonymous' = 'true'
  ) AS m;
END
$$;

COMMENT ON FUNCTION oblivion.open_account() IS 'Implements public.open_account(), as the owner.';
