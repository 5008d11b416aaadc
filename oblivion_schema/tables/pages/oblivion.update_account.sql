-- As public.update_updated_at_column(), but for a page. If pages are metered, what it writes to a balance has no effect,
-- and it cannot give an account another name. Otherwise the ledger gets to know that a page wrote the balance.
-- A balance that the table refuses is left as it is, so the page gets the error that it got before.
-- Runs as the role that updates, to know it. This trigger runs on each tick, and a WHEN condition would be parsed anew
-- each time.
CREATE OR REPLACE FUNCTION oblivion.update_account()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  NEW.updated_at = clock_timestamp();
  IF current_user IN ('anon', 'authenticated') THEN
    IF public.page_billing() = 'metered' THEN
      NEW.user_id = OLD.user_id;
      IF NEW.tokens_remaining >= 0 THEN
        NEW.tokens_remaining = OLD.tokens_remaining;
      END IF;
    ELSIF NEW.tokens_remaining <> OLD.tokens_remaining THEN
      PERFORM set_config('oblivion.reason', 'page ' || current_user, true);
    END IF;
  END IF;
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION oblivion.update_account() IS
  'Trigger: sets updated_at to the server''s clock; a page''s write of a balance has no effect if pages are metered.';
