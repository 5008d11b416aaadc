-- What the first script leaves of presence: its last policy fails, so that nobody but the owner may write.
CREATE TABLE user_presence (
  id uuid DEFAULT gen_random_uuid() PRIMARY KEY,
  user_id text NOT NULL,
  is_available boolean DEFAULT false,
  room_id text NOT NULL,
  updated_at timestamptz DEFAULT now()
);
ALTER TABLE user_presence ENABLE ROW LEVEL SECURITY;
CREATE POLICY "Allow read for anyone" ON user_presence FOR SELECT USING (true);
