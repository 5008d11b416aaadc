-- Page roles have no privilege on schema oblivion. This body was bound to the function there at creation, so a trigger
-- that runs as a page may call it, and so may a page, which learns whether it still has to bill.
-- STABLE, and with a SET, so that PostgreSQL does not put its result into plans: those would not be made anew when
-- oblivion.page_billing() is replaced, which they do not name.
CREATE OR REPLACE FUNCTION public.page_billing()
RETURNS text
LANGUAGE sql
STABLE PARALLEL SAFE
SET search_path = ''
RETURN oblivion.page_billing();

COMMENT ON FUNCTION public.page_billing() IS
  'How a call that a page inserts is billed. Returns trusted (the page bills it) or metered (the database bills it: '
  'what the page writes to a balance, or to the usage of such a call, has no effect).';
