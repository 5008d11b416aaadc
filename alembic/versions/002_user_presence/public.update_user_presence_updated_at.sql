-- On the way of each heartbeat, twice: for the row that an upsert would insert, and for the one that it updates. A
-- condition on the second would cost more than the call, being parsed anew by each statement.
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

COMMENT ON FUNCTION public.update_user_presence_updated_at() IS 'Trigger: stamps updated_at with the server''s clock.';
