-- Each heartbeat calls this twice: for the row that the upsert would insert, and for the row that it updates. A WHEN
-- condition on the second would cost more than the call, because PostgreSQL parses it on every statement.
CREATE OR REPLACE FUNCTION public.update_user_presence_updated_at()
RETURNS trigger
LANGUAGE plpgsql
SET search_path = ''
AS $$
BEGIN
  NEW.updated_at = now();
  RETURN NEW;
END
$$;

COMMENT ON FUNCTION public.update_user_presence_updated_at() IS 'Trigger: sets updated_at to the server''s clock.';
