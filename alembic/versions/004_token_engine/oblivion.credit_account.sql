-- The common part of top_up and refund_call. It locks the account. If the key is known, the answer comes from the
-- ledger row that has it.
CREATE FUNCTION oblivion.credit_account(
  INOUT user_id text,
  INOUT tokens integer,
  INOUT key text,
  kind text,
  session_id uuid,
  refundable integer,
  OUT status text,
  OUT balance integer,
  OUT credited_at timestamptz
)
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  entry pg_catalog.record;
  credited integer;
BEGIN
  IF tokens IS NULL OR tokens <= 0 THEN
    RAISE invalid_parameter_value
      USING MESSAGE = format('tokens is %s', coalesce(tokens::pg_catalog.text, 'NULL')),
        HINT = 'Give a number above zero';
  END IF;
  IF key IS NULL THEN
    RAISE invalid_parameter_value
      USING MESSAGE = 'A credit needs a key', HINT = 'Give each credit a key of its own, and each retry the same key';
  END IF;
  PERFORM oblivion.check_key(key, 'key');
  SELECT a.tokens_remaining INTO balance
  FROM public.user_accounts AS a
  WHERE a.user_id = credit_account.user_id
  FOR NO KEY UPDATE;
  IF NOT FOUND THEN
    RAISE foreign_key_violation
      USING MESSAGE = format('No account: %s', coalesce(left(user_id, 200), 'NULL')),
        HINT = 'Insert it into user_accounts first';
  END IF;
  SELECT l.kind, l.tokens, l.session_id, l.balance, l.created_at
  INTO entry
  FROM public.token_ledger AS l
  WHERE l.user_id = credit_account.user_id AND l.key = credit_account.key;
  IF FOUND THEN
    IF (entry.kind, entry.tokens) <> (credit_account.kind, credit_account.tokens)
      OR entry.session_id IS DISTINCT FROM credit_account.session_id
    THEN
      RAISE unique_violation
        USING MESSAGE = format('key is known from another %s, of %s tokens', entry.kind, entry.tokens),
          HINT = 'Give each credit a key of its own';
    END IF;
    status := 'known';
    balance := entry.balance;
    credited_at := entry.created_at;
    RETURN;
  END IF;
  IF tokens > refundable THEN
    RAISE invalid_parameter_value
      USING MESSAGE = format('A refund of %s tokens, where %s are left of what was charged', tokens, refundable),
        HINT = 'explain_call() gives what was charged';
  END IF;
  IF balance::bigint + tokens > 2147483647 THEN
    RAISE numeric_value_out_of_range
      USING MESSAGE = format('The balance would be %s, beyond an integer', balance::bigint + tokens),
        HINT = 'Give fewer tokens';
  END IF;
  PERFORM set_config('oblivion.reason', concat_ws(' ', kind, coalesce(session_id::pg_catalog.text, ''), key), true);
  UPDATE public.user_accounts AS a
  SET tokens_remaining = a.tokens_remaining + credit_account.tokens
  WHERE a.user_id = credit_account.user_id
  RETURNING a.tokens_remaining INTO credited;
  PERFORM set_config('oblivion.reason', '', true);
  balance := balance + tokens;
  IF credited IS DISTINCT FROM balance THEN
    RAISE triggered_data_change_violation
      USING MESSAGE = 'A trigger on user_accounts changed or dropped the balance that was written',
        HINT = 'Let it leave tokens_remaining alone';
  END IF;
  status := 'ok';
  credited_at := clock_timestamp();
END
$$;

COMMENT ON FUNCTION oblivion.credit_account(text, integer, text, text, uuid, integer) IS
  'Adds tokens to an account, once for each key. The common part of top_up() and refund_call().';
