CREATE TABLE public.token_ledger (
  user_id text NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
  kind text NOT NULL,
  tokens integer NOT NULL,
  balance integer NOT NULL,
  session_id uuid,
  key text,
  CONSTRAINT token_ledger_pkey PRIMARY KEY (user_id, id)
);
