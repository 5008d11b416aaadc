-- Whatever changes a balance, a row of the ledger tells of it; the engine says why in a setting that is local to its own
-- statement, and all else is a direct change. After the row has changed: nothing that happens to it later is missed.
CREATE FUNCTION oblivion.write_ledger()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = ''
AS $$
DECLARE
  -- What, of which call, by which key: 'refund 0190c0de-0000-7000-8000-000000000000 key'.
  reason CONSTANT pg_catalog.text := current_setting('oblivion.reason', true);
BEGIN
  IF TG_OP = 'UPDATE' AND OLD.user_id = NEW.user_id THEN
    IF OLD.tokens_remaining <> NEW.tokens_remaining THEN
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
    INSERT INTO public.token_ledger (user_id, kind, tokens, balance)
    VALUES (NEW.user_id, 'opening', NEW.tokens_remaining, NEW.tokens_remaining);
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion.write_ledger() IS 'Trigger: writes a row of the ledger for each change of a balance.';
