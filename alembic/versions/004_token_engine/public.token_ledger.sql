CREATE TABLE public.token_ledger (
  user_id text NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY NOT NULL,
  created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
  kind text NOT NULL,
  tokens integer NOT NULL,
  balance integer NOT NULL,
  session_id uuid,
  key text,
  role text,
  CONSTRAINT token_ledger_pkey PRIMARY KEY (user_id, id)
);

CREATE UNIQUE INDEX idx_token_ledger_key ON public.token_ledger (user_id, key) WHERE key IS NOT NULL;

ALTER TABLE public.token_ledger ENABLE ROW LEVEL SECURITY;

CREATE POLICY token_ledger_select ON public.token_ledger FOR SELECT TO public
  USING (oblivion.open_access() OR oblivion.is_service_role() OR user_id = (SELECT oblivion.current_user_id()));

CREATE POLICY token_ledger_insert ON public.token_ledger FOR INSERT TO public WITH CHECK (false);

CREATE POLICY token_ledger_update ON public.token_ledger FOR UPDATE TO public
  USING (false)
  WITH CHECK (false);

CREATE POLICY token_ledger_delete ON public.token_ledger FOR DELETE TO public USING (false);

DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON SEQUENCE public.token_ledger_id_seq FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON SEQUENCE public.token_ledger_id_seq FROM %I CASCADE', api_role);
  END LOOP;
END
$$;

DO $$
BEGIN
  REVOKE ALL ON TABLE public.token_ledger FROM PUBLIC CASCADE;
  IF to_regrole('anon') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.token_ledger FROM anon CASCADE;
    IF oblivion.open_access() THEN
      GRANT SELECT ON TABLE public.token_ledger TO anon;
    END IF;
  END IF;
  IF to_regrole('authenticated') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.token_ledger FROM authenticated CASCADE;
    GRANT SELECT ON TABLE public.token_ledger TO authenticated;
  END IF;
  IF to_regrole('service_role') IS NOT NULL THEN
    REVOKE ALL ON TABLE public.token_ledger FROM service_role CASCADE;
    GRANT SELECT ON TABLE public.token_ledger TO service_role;
  END IF;
END
$$;

COMMENT ON TABLE public.token_ledger IS 'One row for each change of a balance: a balance is the sum of its rows.';
COMMENT ON COLUMN public.token_ledger.user_id IS 'The account; it may have been deleted since.';
COMMENT ON COLUMN public.token_ledger.id IS
  'Identifier of the row; it grows with each row of an account. 0: an opening that backfill() wrote.';
COMMENT ON COLUMN public.token_ledger.created_at IS 'When the balance changed.';
COMMENT ON COLUMN public.token_ledger.kind IS
  'opening or closing (of the account); charge, refund, top_up; direct (any other change); carried (sum of trimmed '
  'rows); correction (what the ledger lacked, by rebuild_ledger()).';
COMMENT ON COLUMN public.token_ledger.tokens IS 'Tokens added to the balance; negative if they were taken.';
COMMENT ON COLUMN public.token_ledger.balance IS 'Balance after the change.';
COMMENT ON COLUMN public.token_ledger.session_id IS 'The call that was charged or refunded; NULL for other rows.';
COMMENT ON COLUMN public.token_ledger.key IS
  'Idempotency key of a top_up or refund, which is credited once for each key.';
COMMENT ON COLUMN public.token_ledger.role IS
  'anon or authenticated if a page wrote the balance by itself; NULL for other rows.';
