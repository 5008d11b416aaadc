  -- A table that was made by hand, the owner of which sees all of its rows, and that is not prepared yet.
  there CONSTANT oid := (
    SELECT c.oid
    FROM pg_catalog.pg_class AS c
    WHERE c.oid = to_regclass('public.<table>') AND relkind = 'r' AND NOT relforcerowsecurity
      AND obj_description(c.oid, 'pg_class') IS DISTINCT FROM '<comment>'<read>
      AND EXISTS (
        SELECT FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attname IN (<columns>) AND NOT attnotnull
      )
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint
        WHERE conrelid = c.oid AND conname = '<table>_prepared_check' AND convalidated
      )
  );
