CREATE FUNCTION oblivion.top_up(INOUT user_id text, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer)
RETURNS record
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path TO ''
AS $function$
BEGIN
  SELECT c.status, c.balance
  INTO status, balance
  FROM oblivion.credit_account(user_id, tokens, key, 'top_up', NULL, NULL) AS c;
END
$function$;
