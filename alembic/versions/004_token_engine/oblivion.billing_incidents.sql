CREATE TABLE oblivion.billing_incidents (
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  session_id uuid NOT NULL,
  user_id text,
  action text NOT NULL,
  error_code text NOT NULL,
  message text NOT NULL,
  attempts integer DEFAULT 1 NOT NULL,
  first_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
  last_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
  resolved_at timestamp with time zone,
  CONSTRAINT billing_incidents_pkey PRIMARY KEY (id)
);

CREATE UNIQUE INDEX billing_incidents_open ON oblivion.billing_incidents (session_id)
  WHERE resolved_at IS NULL;

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON SEQUENCE oblivion.billing_incidents_id_seq FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON SEQUENCE oblivion.billing_incidents_id_seq FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON TABLE oblivion.billing_incidents FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON TABLE oblivion.billing_incidents FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

COMMENT ON TABLE oblivion.billing_incidents IS 'Calls whose billing failed, with the error; clients cannot read them.';
COMMENT ON COLUMN oblivion.billing_incidents.id IS 'Identifier of the incident.';
COMMENT ON COLUMN oblivion.billing_incidents.session_id IS
  'The call that could not be billed; it may have been deleted since.';
COMMENT ON COLUMN oblivion.billing_incidents.user_id IS 'The user of the call.';
COMMENT ON COLUMN oblivion.billing_incidents.action IS
  'The action that could not bill the call: tick, turn, end, burn, reap or settle; unmeter if it could not undo a '
  'bill.';
COMMENT ON COLUMN oblivion.billing_incidents.error_code IS 'SQLSTATE of the error.';
COMMENT ON COLUMN oblivion.billing_incidents.message IS 'Message of the error.';
COMMENT ON COLUMN oblivion.billing_incidents.attempts IS
  'Failed attempts; action, error_code and message describe the last one.';
COMMENT ON COLUMN oblivion.billing_incidents.first_at IS 'When billing first failed.';
COMMENT ON COLUMN oblivion.billing_incidents.last_at IS 'When billing last failed.';
COMMENT ON COLUMN oblivion.billing_incidents.resolved_at IS 'When the call was billed; NULL while it is not.';
