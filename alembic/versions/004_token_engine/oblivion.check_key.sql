CREATE FUNCTION oblivion.check_key(key text, name text)
RETURNS void
LANGUAGE plpgsql
IMMUTABLE
SET search_path = ''
AS $$
BEGIN
  IF key = '' OR length(key) > 200 THEN
    RAISE invalid_parameter_value
      USING MESSAGE = format('%s has %s characters', name, length(key)), HINT = 'Give 1 to 200, such as a random UUID';
  END IF;
END
$$;

COMMENT ON FUNCTION oblivion.check_key(text, text) IS 'Raises 22023 if a key is empty or longer than 200 characters.';
