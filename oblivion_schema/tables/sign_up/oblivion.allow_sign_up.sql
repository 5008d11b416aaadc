CREATE OR REPLACE FUNCTION oblivion.allow_sign_up(tokens integer)
RETURNS void
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  IF tokens < 0 THEN
    RAISE invalid_parameter_value
      USING MESSAGE = format('tokens is %s', tokens), HINT = 'Give zero or more, or NULL to let nobody sign up';
  END IF;
  DELETE FROM oblivion.sign_up;
  INSERT INTO oblivion.sign_up (tokens) SELECT allow_sign_up.tokens WHERE allow_sign_up.tokens IS NOT NULL;
END
$$;

COMMENT ON FUNCTION oblivion.allow_sign_up(integer) IS
  'For the owner: users may open accounts, each with this many tokens; NULL: nobody may. Accounts that there are stay as '
  'they are.';
