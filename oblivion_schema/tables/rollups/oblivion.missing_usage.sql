-- A function, because of a view the planner would see the rows, and would plan each report as if it read all of them.
-- Its names are bound at creation: who reads a report may not use schema oblivion. STABLE: it has the snapshot of the query that calls it.
CREATE OR REPLACE FUNCTION oblivion.missing_usage()
RETURNS TABLE (
  usage_date date,
  mode text,
  used_turn boolean,
  sessions bigint,
  tokens bigint,
  seconds bigint
)
LANGUAGE sql
STABLE PARALLEL SAFE ROWS 100
SET search_path = ''
BEGIN ATOMIC
  SELECT d.usage_date, d.mode, d.used_turn, d.sessions, d.tokens, d.seconds
  FROM oblivion.daily_usage_drift AS d;
END;

COMMENT ON FUNCTION oblivion.missing_usage() IS
  'What the roll-up of days lacks of token_usage: daily_token_usage adds it until the roll-up is filled.';
