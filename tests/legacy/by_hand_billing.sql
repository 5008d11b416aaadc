-- Somebody's own, beside the billing script. The grant is to a role that every server has.
ALTER TABLE user_accounts ADD COLUMN role text;
ALTER TABLE user_accounts ADD CONSTRAINT known_role CHECK (role IN ('admin', 'agent'));
CREATE POLICY "Staff reads accounts" ON user_accounts FOR SELECT USING (role = 'admin');
GRANT SELECT (user_id, tokens_remaining) ON user_accounts TO pg_monitor;
GRANT SELECT ON user_token_summary TO pg_monitor;
CREATE TABLE invoices (
  number integer PRIMARY KEY,
  user_id text REFERENCES user_accounts (user_id),
  paid boolean
);
INSERT INTO invoices (number, user_id, paid) VALUES (1, 'demo_user', true);
