-- What the first script leaves of calls. Its functions have no search_path, its views their owner's rights.
CREATE TABLE call_sessions (
  id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
  room_id text NOT NULL,
  start_time timestamptz DEFAULT now(),
  end_time timestamptz,
  mode text NOT NULL CHECK (mode IN ('video', 'voice-only')),
  used_turn boolean DEFAULT false,
  credit_cost numeric(10, 4) DEFAULT 0.00,
  user_id text,
  created_at timestamptz DEFAULT now(),
  updated_at timestamptz DEFAULT now()
);
CREATE INDEX idx_call_sessions_room_id ON call_sessions (room_id);
CREATE INDEX idx_call_sessions_start_time ON call_sessions (start_time);
CREATE INDEX idx_call_sessions_used_turn ON call_sessions (used_turn);
CREATE INDEX idx_call_sessions_user_id ON call_sessions (user_id);
CREATE INDEX idx_call_sessions_billing ON call_sessions (used_turn, start_time);

CREATE FUNCTION update_updated_at_column() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.updated_at = now();
  RETURN NEW;
END
$$;
CREATE TRIGGER update_call_sessions_updated_at
BEFORE UPDATE ON call_sessions
FOR EACH ROW EXECUTE FUNCTION update_updated_at_column();

ALTER TABLE call_sessions ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Allow all operations on call_sessions" ON call_sessions FOR ALL USING (true) WITH CHECK (true);

CREATE VIEW active_calls AS
SELECT id, room_id, mode, used_turn, start_time, now() - start_time AS duration
FROM call_sessions
WHERE end_time IS NULL
ORDER BY start_time DESC;

CREATE VIEW daily_billing_summary AS
SELECT
  date(start_time) AS call_date,
  count(*) AS total_calls,
  count(*) FILTER (WHERE used_turn) AS turn_calls,
  count(*) FILTER (WHERE mode = 'video') AS video_calls,
  count(*) FILTER (WHERE mode = 'voice-only') AS voice_calls,
  sum(credit_cost) AS total_credits,
  avg(extract(epoch FROM end_time - start_time) / 60) AS avg_duration_minutes
FROM call_sessions
WHERE start_time >= current_date - interval '30 days'
GROUP BY date(start_time)
ORDER BY call_date DESC;
