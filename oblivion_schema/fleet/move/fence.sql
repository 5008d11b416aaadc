CREATE SCHEMA oblivion_move;

COMMENT ON SCHEMA oblivion_move IS
  'A move of this site to another server: who takes writes. Of a site that has moved it stays, and keeps writes out.';

CREATE TABLE oblivion_move.move (
  id uuid PRIMARY KEY,
  side text NOT NULL CHECK (side IN ('source', 'target')),
  other text NOT NULL
);

COMMENT ON TABLE oblivion_move.move IS 'One row: the move, which has the same id on both sides; the other side, as the mover reaches it.';

CREATE TABLE oblivion_move.marks (number bigint PRIMARY KEY, is_decision boolean NOT NULL);

COMMENT ON TABLE oblivion_move.marks IS
  'Written by the source, and replicated: when a mark is at the target, all that was committed before is there, too. '
  'With the decision the source takes no writes any more, and the target does.';

CREATE FUNCTION oblivion_move.refuse()
RETURNS trigger
LANGUAGE plpgsql
-- A statement that began before the decision has not seen all that came with it, and is refused.
STABLE
SECURITY DEFINER
SET search_path = ''
AS $$
BEGIN
  -- A transaction that began before may not see the decision.
  IF TG_ARGV[0] = 'source' THEN
    RAISE EXCEPTION 'This site has moved to another server'
      USING ERRCODE = 'PT503', HINT = 'Connect to the new server.';
  ELSIF NOT EXISTS (SELECT FROM oblivion_move.marks WHERE is_decision) THEN
    RAISE EXCEPTION 'This site is being moved here'
      USING ERRCODE = 'PT503', HINT = 'Until it has moved, its old server takes the writes.';
  END IF;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION oblivion_move.refuse() IS
  'Trigger: refuses writes to the side that does not take them. PostgREST makes a response with status 503 of it.';
