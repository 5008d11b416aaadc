-- On the way of each heartbeat, twice: for the row that an upsert would insert, and for the one that it updates. A
-- condition on the second costs more than the call, being parsed anew by each statement, and a search_path of its own a
-- twentieth of the whole statement: CURRENT_TIMESTAMP is a keyword, so that no name is looked up here.
CREATE OR REPLACE FUNCTION public.update_user_presence_updated_at()
RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
  NEW.updated_at = CURRENT_TIMESTAMP;
  RETURN NEW;
END
$$;
