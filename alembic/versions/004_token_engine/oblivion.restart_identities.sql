-- A copy of rows alone (logical replication, a restore, COPY) leaves the sequences of identities where they were: at 1
-- in a new database. The next rows would get ids of old ones (23505), or sort before them (gaps in the ledger).
CREATE FUNCTION oblivion.restart_identities()
RETURNS bigint
LANGUAGE plpgsql
SET search_path = ''
AS $$
DECLARE
  identity pg_catalog.regclass;
  sequence pg_catalog.regclass;
  newest bigint;
  behind bigint := 0;
BEGIN
  PERFORM oblivion.refuse_pages();
  FOREACH identity IN ARRAY ARRAY['public.token_ledger', 'oblivion.billing_incidents', 'oblivion.adoption_log'] LOOP
    sequence := pg_get_serial_sequence(identity::pg_catalog.text, 'id');
    -- This may take a while, and locks nothing: what is written meanwhile gets its id from the sequence.
    EXECUTE format('SELECT max(id) FROM %s', identity) INTO newest;
    CONTINUE WHEN newest <= coalesce(pg_sequence_last_value(sequence), 0) OR newest IS NULL;
    -- Who writes takes a number after he has locked the table: so nobody takes one now, which could be set back.
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', identity);
    IF newest > coalesce(pg_sequence_last_value(sequence), 0) THEN
      PERFORM setval(sequence, newest);
      behind := behind + 1;
    END IF;
  END LOOP;
  RETURN behind;
END
$$;

COMMENT ON FUNCTION oblivion.restart_identities() IS
  'Lets each identity go on after the newest id of its table, while writers go on: after a copy of rows alone, such as '
  'logical replication. Returns how many were behind.';
