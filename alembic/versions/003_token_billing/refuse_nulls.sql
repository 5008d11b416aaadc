-- No report can sum up a row with a NULL in one of these. A table that takes none there is not scanned; since 18 old rows
-- may break NOT NULL.
DO $$
DECLARE
  nullable CONSTANT text[] := ARRAY(
    SELECT attname::text
    FROM pg_catalog.pg_attribute
    WHERE attrelid = 'public.token_usage'::regclass AND attname IN ('user_id', 'tokens_used', 'mode', 'used_turn')
      AND (NOT attnotnull OR EXISTS (
        SELECT FROM pg_catalog.pg_constraint
        WHERE conrelid = attrelid AND contype = 'n' AND conkey = ARRAY[attnum] AND NOT convalidated
      ))
  );
  name text;
BEGIN
  IF nullable <> '{}' AND EXISTS (
    SELECT FROM public.token_usage
    WHERE user_id IS NULL OR tokens_used IS NULL OR mode IS NULL OR used_turn IS NULL
  ) THEN
    RAISE EXCEPTION 'Rows of public.token_usage have a NULL in user_id, tokens_used, mode or used_turn'
      USING ERRCODE = 'not_null_violation', HINT = 'Correct or delete them: no report can sum them up';
  END IF;
  FOREACH name IN ARRAY nullable LOOP
    EXECUTE format('ALTER TABLE public.token_usage ALTER %I SET NOT NULL', name);
  END LOOP;
END
$$;
