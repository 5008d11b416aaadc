-- Somebody's own, beside the scripts. The grant is to a role that every server has.
ALTER TABLE call_sessions ADD COLUMN rating integer;
CREATE INDEX calls_by_rating ON call_sessions (rating);
CREATE POLICY "Support reads calls" ON call_sessions FOR SELECT USING (true);
GRANT SELECT ON call_sessions, active_calls TO pg_monitor;
CREATE TABLE call_notes (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  call_id uuid REFERENCES call_sessions (id),
  note text
);
INSERT INTO call_notes (call_id, note)
SELECT id, 'kept' FROM call_sessions WHERE room_id = 'lobby';
CREATE VIEW calls_now AS
SELECT count(*) AS calls, max(duration) AS longest FROM active_calls;
