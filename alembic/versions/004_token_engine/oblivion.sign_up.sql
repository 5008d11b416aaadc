CREATE TABLE oblivion.sign_up (
  is_open boolean DEFAULT true NOT NULL,
  tokens integer NOT NULL,
  CONSTRAINT sign_up_pkey PRIMARY KEY (is_open),
  CONSTRAINT sign_up_is_open_check CHECK (is_open),
  CONSTRAINT sign_up_tokens_check CHECK (tokens >= 0)
);

ALTER TABLE oblivion.sign_up ENABLE ROW LEVEL SECURITY;

CREATE POLICY sign_up_all ON oblivion.sign_up FOR ALL TO public USING (current_user NOT IN ('anon', 'authenticated'));

CREATE TRIGGER bar_truncate BEFORE TRUNCATE ON oblivion.sign_up
  FOR EACH STATEMENT EXECUTE FUNCTION oblivion.bar_truncate();

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.sign_up FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.sign_up FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

COMMENT ON TABLE oblivion.sign_up IS
  'Whether users may open accounts: without a row nobody may. allow_sign_up() writes it.';
COMMENT ON COLUMN oblivion.sign_up.is_open IS 'True: there is one row, or none.';
COMMENT ON COLUMN oblivion.sign_up.tokens IS 'Tokens of a new account.';
