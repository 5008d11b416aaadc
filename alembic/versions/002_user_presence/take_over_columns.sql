-- The first script's table lacks room_token, and calls host_id user_id: give it the later names and columns.
DO $$
DECLARE
  names name[];
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_catalog.pg_class
    WHERE oid = to_regclass('public.user_presence') AND relkind = 'r' AND pg_has_role(relowner, 'USAGE')
  ) THEN
    RETURN;
  END IF;
  SELECT array_agg(attname) INTO names
  FROM pg_catalog.pg_attribute
  WHERE attrelid = to_regclass('public.user_presence') AND NOT attisdropped;
  IF 'user_id' = ANY (names) AND NOT 'host_id' = ANY (names) THEN
    ALTER TABLE public.user_presence RENAME COLUMN user_id TO host_id;
    INSERT INTO oblivion.adoption_log (kind, name, why)
    VALUES ('renamed', 'public.user_presence.host_id', 'It was user_id, which no client writes.');
  ELSIF 'user_id' = ANY (names) THEN
    -- The table has both columns. ALTER, not UPDATE: triggers would change updated_at, and policies might hide rows.
    ALTER TABLE public.user_presence
      ALTER host_id TYPE text USING coalesce(host_id, user_id),
      ALTER user_id DROP NOT NULL;
    INSERT INTO oblivion.adoption_log (kind, name, why)
    VALUES ('renamed', 'public.user_presence.host_id', 'It was filled from user_id where it was NULL.');
  END IF;
  IF EXISTS (
    SELECT FROM pg_catalog.pg_constraint
    WHERE conrelid = to_regclass('public.user_presence') AND conname = 'idx_user_presence_host_unique'
  ) THEN
    ALTER TABLE public.user_presence DROP CONSTRAINT idx_user_presence_host_unique;
  END IF;
  ALTER TABLE public.user_presence ADD COLUMN IF NOT EXISTS room_token text;
END
$$;
