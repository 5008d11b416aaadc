-- Every change of a balance gets a ledger row, whoever made it. The engine says why in the setting oblivion.reason,
-- which it sets for its own statement only. Without a reason the change is of kind direct; update_account() says if a
-- page made it.
-- It is an AFTER trigger: it sees the balance that is stored, whatever BEFORE triggers did to the row.
CREATE FUNCTION oblivion.write_ledger()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  -- Kind, call and key, such as 'refund 0190c0de-0000-7000-8000-000000000000 key'.
  reason CONSTANT pg_catalog.text := current_setting('oblivion.reason', true);
BEGIN
  IF TG_RELID <> 'public.user_accounts'::pg_catalog.regclass THEN
    RAISE insufficient_privilege USING MESSAGE = 'Only a trigger of user_accounts may do that';
  END IF;
  IF TG_OP = 'UPDATE' AND OLD.user_id = NEW.user_id THEN
    IF OLD.tokens_remaining = NEW.tokens_remaining THEN
      RETURN NULL;
    ELSIF starts_with(reason, 'charge ') THEN
      -- As below, with less work: this is a tick.
      INSERT INTO public.token_ledger (user_id, kind, tokens, balance, session_id)
      VALUES (
        NEW.user_id, 'charge', NEW.tokens_remaining - OLD.tokens_remaining, NEW.tokens_remaining,
        substr(reason, 8)::pg_catalog.uuid
      );
    ELSIF starts_with(reason, 'page ') THEN
      -- The label stays until the transaction is over; another role may write in it later.
      INSERT INTO public.token_ledger (user_id, kind, tokens, balance, role)
      VALUES (
        NEW.user_id, 'direct', NEW.tokens_remaining - OLD.tokens_remaining, NEW.tokens_remaining,
        CASE WHEN oblivion.is_page() THEN substr(reason, 6) END
      );
    ELSE
      INSERT INTO public.token_ledger (user_id, kind, tokens, balance, session_id, key)
      VALUES (
        NEW.user_id,
        coalesce(nullif(split_part(reason, ' ', 1), ''), 'direct'),
        NEW.tokens_remaining - OLD.tokens_remaining,
        NEW.tokens_remaining,
        nullif(split_part(reason, ' ', 2), '')::pg_catalog.uuid,
        nullif(substr(reason, length(split_part(reason, ' ', 1)) + length(split_part(reason, ' ', 2)) + 3), '')
      );
    END IF;
    RETURN NULL;
  END IF;
  IF TG_OP <> 'INSERT' THEN
    INSERT INTO public.token_ledger (user_id, kind, tokens, balance)
    VALUES (OLD.user_id, 'closing', -OLD.tokens_remaining, 0);
  END IF;
  IF TG_OP <> 'DELETE' THEN
    -- rebuild_ledger() waits for this where it corrects the ledger of an account that is gone.
    PERFORM pg_advisory_xact_lock_shared(hashtextextended('oblivion.open_ledger', 0));
    INSERT INTO public.token_ledger (user_id, kind, tokens, balance)
    VALUES (NEW.user_id, 'opening', NEW.tokens_remaining, NEW.tokens_remaining);
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.write_ledger() IS 'Trigger: writes a ledger row for each change of a balance.';
