DO $$
DECLARE
  holding text;
BEGIN
  IF coalesce(current_setting('oblivion.drop_data', true), '') = 'yes' THEN
    RETURN;
  END IF;
  -- An opening row may go: it only repeats the balance of its account.
  SELECT string_agg(name, ', ') INTO holding
  FROM (
    SELECT 'public.token_ledger' AS name WHERE EXISTS (SELECT FROM public.token_ledger WHERE kind <> 'opening')
    UNION ALL
    SELECT 'oblivion.call_meters' WHERE EXISTS (SELECT FROM oblivion.call_meters)
    UNION ALL
    SELECT 'oblivion.billing_incidents' WHERE EXISTS (SELECT FROM oblivion.billing_incidents)
    UNION ALL
    SELECT 'oblivion.sign_up' WHERE EXISTS (SELECT FROM oblivion.sign_up)
  ) AS tables;
  IF holding IS NOT NULL THEN
    RAISE EXCEPTION '% holds rows, which this downgrade would drop', holding
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Save them first, then downgrade with -x drop-data=yes';
  END IF;
END
$$;
