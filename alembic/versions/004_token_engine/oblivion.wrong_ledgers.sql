-- Retention would delete what shows when and how a ledger went wrong.
CREATE FUNCTION oblivion.wrong_ledgers()
RETURNS text[]
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  wrong CONSTANT pg_catalog.text[] := ARRAY(
    SELECT a.user_id
    FROM oblivion.balance_audit AS a
    WHERE a.drift <> 0 OR a.gaps <> 0
    ORDER BY a.user_id
  );
BEGIN
  IF wrong <> '{}' THEN
    RAISE WARNING 'The ledgers of % accounts are wrong, and left alone: %',
      cardinality(wrong),
      left(array_to_string(wrong[1:5], ', '), 1000) || CASE WHEN cardinality(wrong) > 5 THEN ', ...' ELSE '' END
      USING HINT = 'Run SELECT oblivion.rebuild_ledger(), and repeat it; oblivion.balance_audit has all of them';
  END IF;
  RETURN wrong;
END
$$;

COMMENT ON FUNCTION oblivion.wrong_ledgers() IS
  'The accounts whose ledger trim_ledger() and fold_charges() leave alone, because it is wrong; warns of them.';
