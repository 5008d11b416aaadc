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
