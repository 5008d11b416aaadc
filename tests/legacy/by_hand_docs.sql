-- What somebody did by hand to the database of docs/adoption.md.
ALTER TABLE call_sessions ADD COLUMN rating integer;
CREATE POLICY "Support reads calls" ON call_sessions FOR SELECT USING (true);
GRANT SELECT ON user_token_summary TO pg_monitor;
CREATE TABLE invoices (number integer PRIMARY KEY, user_id text REFERENCES user_accounts (user_id));
ALTER TABLE user_accounts DROP CONSTRAINT positive_tokens;
UPDATE user_accounts SET tokens_remaining = -3 WHERE user_id = 'spent';
