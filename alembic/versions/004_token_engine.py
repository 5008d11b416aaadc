"""The token engine.

Why: clients billed calls by reading a balance and writing it back; from here on functions in the database do, so that each
started minute is billed once, and a ledger tells of every change of a balance.
Locks: calls, accounts and usage against everybody, all of them at once or none, while a row of the ledger is written for
each account: 3.3 s for a million accounts.
"""

from oblivion_schema.operations import run_sql
from oblivion_schema.operations.adoption import lock_together

revision = "004"
down_revision = "003"
branch_labels = None
depends_on = None

# By whom they may be executed.
FOR_EVERYBODY = (
    "oblivion.advance_call(uuid,text,boolean,text)",
    "oblivion.call_quote(text,text,boolean,text)",
    "oblivion.start_call(text,text,text,boolean,text,text)",
    "oblivion.explain_call(uuid,text)",
    "public.call_quote(text,text,boolean)",
    "public.start_call(text,text,text,boolean,text)",
    "public.tick_call(uuid)",
    "public.set_call_turn(uuid,boolean)",
    "public.end_call(uuid)",
    "public.explain_call(uuid)",
)
FOR_SERVICES = (
    "oblivion.top_up(text,integer,text)",
    "oblivion.refund_call(uuid,integer,text)",
    "oblivion.reap_stale_calls(interval,integer)",
    "oblivion.settle_calls(integer)",
    "public.top_up(text,integer,text)",
    "public.refund_call(uuid,integer,text)",
    "public.reap_stale_calls(interval,integer)",
    "public.settle_calls(integer)",
)
FOR_NOBODY = (
    "oblivion.write_ledger()",
    "oblivion.close_ledger()",
    "oblivion.trim_ledger(timestamp with time zone)",
    "oblivion.may_act_for(text,text)",
    "oblivion.check_key(text,text)",
    "oblivion.note_incident(uuid,text,text,text,text)",
    "oblivion.note_outcome(uuid,text,boolean,boolean,boolean)",
    "oblivion.bill_call(oblivion.call_meters,text,timestamp with time zone,integer,timestamp with time zone,text)",
    "oblivion.turn_call(oblivion.call_meters,boolean,double precision)",
    "oblivion.rate_card(text,boolean)",
    "oblivion.advance_unmetered_call(uuid,text,text)",
    "oblivion.credit_account(text,integer,text,text,uuid,integer)",
    "oblivion.guard_metered_call()",
    "oblivion.settle_deleted_call()",
    "oblivion.guard_metered_usage()",
)


def upgrade() -> None:
    lock_together("call_sessions", "user_accounts", "token_usage")
    create_ledger()
    create_meters()
    create_engine()
    create_public_functions()
    create_guards()
    run_sql(
        """
        INSERT INTO public.token_ledger (user_id, kind, tokens, balance)
        SELECT user_id, 'opening', tokens_remaining, tokens_remaining
        FROM public.user_accounts
        """
    )
    grant_execution(FOR_EVERYBODY, "anon", "authenticated", "service_role")
    grant_execution(FOR_SERVICES, "service_role")
    grant_execution(FOR_NOBODY)
    for thing, comment in (
        ("FUNCTION oblivion.write_ledger()", "Trigger: writes a row of the ledger for each change of a balance."),
        ("FUNCTION oblivion.close_ledger()", "Trigger: writes a closing row for each account before TRUNCATE."),
        ("TABLE public.token_ledger", "One row for each change of a balance: a balance is the sum of its rows."),
        ("COLUMN public.token_ledger.user_id", "The account; it may be gone by now."),
        ("COLUMN public.token_ledger.id", "The entry; those of one account are in order."),
        ("COLUMN public.token_ledger.created_at", "When the balance changed."),
        (
            "COLUMN public.token_ledger.kind",
            "opening, closing (of the account), charge, refund, top_up; direct (old clients), carried (the past).",
        ),
        ("COLUMN public.token_ledger.tokens", "Tokens that came in, or, below zero, went out."),
        ("COLUMN public.token_ledger.balance", "What the account had then."),
        ("COLUMN public.token_ledger.session_id", "The call that was charged or refunded."),
        ("COLUMN public.token_ledger.key", "The key by which a credit is made once."),
        (
            "FUNCTION oblivion.trim_ledger(timestamp with time zone)",
            "The owner''s retention: makes one row of an account''s rows before that moment; returns how many went.",
        ),
        (
            "VIEW oblivion.balance_audit",
            "Each account''s balance beside the sum of its ledger; a row with drift or gaps is wrong.",
        ),
        ("COLUMN oblivion.balance_audit.user_id", "The account."),
        ("COLUMN oblivion.balance_audit.balance", "What it has; 0 where it is gone."),
        ("COLUMN oblivion.balance_audit.ledger", "The sum of its rows in the ledger."),
        ("COLUMN oblivion.balance_audit.drift", "balance less ledger: 0, or something changed past the triggers."),
        (
            "COLUMN oblivion.balance_audit.gaps",
            "Rows whose balance is not that of the row before and their tokens: 0, or rows are missing.",
        ),
        ("TABLE oblivion.call_meters", "What the engine knows of each call that start_call() made."),
        ("COLUMN oblivion.call_meters.session_id", "The call."),
        ("COLUMN oblivion.call_meters.user_id", "Who started it; with client_key what makes a start known."),
        ("COLUMN oblivion.call_meters.client_key", "The key by which its client starts it once."),
        ("COLUMN oblivion.call_meters.mode", "What is priced: voice (a voice-only call) or video."),
        ("COLUMN oblivion.call_meters.direct_rate", "Tokens for each started minute without TURN, as it began."),
        ("COLUMN oblivion.call_meters.direct_rate_from", "The date of that rate."),
        ("COLUMN oblivion.call_meters.turn_rate", "Tokens for each started minute over TURN, as it began."),
        ("COLUMN oblivion.call_meters.turn_rate_from", "The date of that rate."),
        ("COLUMN oblivion.call_meters.segment", "Which of its segments goes on, from 1."),
        ("COLUMN oblivion.call_meters.usage_id", "That one''s row of token_usage, once it has one."),
        ("COLUMN oblivion.call_meters.used_turn", "Whether the TURN rate applies to it."),
        ("COLUMN oblivion.call_meters.tokens_per_minute", "Tokens for each of its started minutes."),
        ("COLUMN oblivion.call_meters.first_minute", "Minutes of the call before it."),
        ("COLUMN oblivion.call_meters.first_second", "Seconds of the call before it."),
        ("COLUMN oblivion.call_meters.due_before", "Tokens that the minutes before it cost."),
        ("COLUMN oblivion.call_meters.shortfall", "Tokens that were due in it while the balance did not cover them."),
        ("COLUMN oblivion.call_meters.refunded", "Tokens given back."),
        ("COLUMN oblivion.call_meters.settled", "It has ended, and is billed to its end."),
        ("COLUMN oblivion.call_meters.reaped", "It was ended as stale: a late tick revives it."),
        ("COLUMN oblivion.call_meters.has_incident", "Its last billing failed: an incident is open."),
        (
            "TABLE oblivion.call_segments",
            "The past segments of metered calls: spans at one rate, each with a row of usage.",
        ),
        ("COLUMN oblivion.call_segments.session_id", "The call."),
        ("COLUMN oblivion.call_segments.number", "From 1, in the call''s order."),
        ("COLUMN oblivion.call_segments.usage_id", "Its row of token_usage, once it has one."),
        ("COLUMN oblivion.call_segments.used_turn", "Whether the TURN rate applies."),
        ("COLUMN oblivion.call_segments.tokens_per_minute", "Tokens for each of its started minutes."),
        ("COLUMN oblivion.call_segments.rate_from", "The date of that rate."),
        ("COLUMN oblivion.call_segments.first_minute", "Minutes of the call before it."),
        ("COLUMN oblivion.call_segments.minutes", "Its minutes."),
        ("COLUMN oblivion.call_segments.seconds", "Its length in seconds."),
        ("COLUMN oblivion.call_segments.due_before", "Tokens that the minutes before it cost."),
        ("COLUMN oblivion.call_segments.due_after", "Tokens that they cost with its own."),
        ("COLUMN oblivion.call_segments.shortfall", "Tokens that were due in it while the balance did not cover them."),
        ("TABLE oblivion.billing_incidents", "Calls whose billing failed, which their clients never see."),
        ("COLUMN oblivion.billing_incidents.id", "The incident."),
        ("COLUMN oblivion.billing_incidents.session_id", "The call that could not be billed; it may be gone by now."),
        ("COLUMN oblivion.billing_incidents.user_id", "Its user."),
        ("COLUMN oblivion.billing_incidents.action", "What it was billed for: tick, turn, end, reap or settle."),
        ("COLUMN oblivion.billing_incidents.error_code", "PostgreSQL''s SQLSTATE."),
        ("COLUMN oblivion.billing_incidents.message", "PostgreSQL''s message."),
        ("COLUMN oblivion.billing_incidents.attempts", "How often it failed; else of the last time."),
        ("COLUMN oblivion.billing_incidents.first_at", "When it failed first."),
        ("COLUMN oblivion.billing_incidents.last_at", "When it failed last."),
        ("COLUMN oblivion.billing_incidents.resolved_at", "When the call was billed; NULL while it is not."),
        ("FUNCTION oblivion.may_act_for(text,text)", "Whether a role may act for a user, or a call of no user."),
        ("FUNCTION oblivion.check_key(text,text)", "Refuses a key that is empty, or longer than 200 characters."),
        ("FUNCTION oblivion.note_incident(uuid,text,text,text,text)", "Notes that a call could not be billed."),
        ("FUNCTION oblivion.note_outcome(uuid,text,boolean,boolean,boolean)", "Notes what a bill has made of a call."),
        (
            "FUNCTION oblivion.bill_call(oblivion.call_meters,text,timestamp with time zone,integer,timestamp with time zone,text)",
            "Charges what a call costs until then, less what it has been billed; a failure is a status.",
        ),
        (
            "FUNCTION oblivion.turn_call(oblivion.call_meters,boolean,double precision)",
            "Begins a segment at another rate.",
        ),
        ("FUNCTION oblivion.rate_card(text,boolean)", "What a minute costs now."),
        (
            "FUNCTION oblivion.advance_unmetered_call(uuid,text,text)",
            "What advance_call() does to a call of an old client.",
        ),
        (
            "FUNCTION oblivion.advance_call(uuid,text,boolean,text)",
            "What tick_call(), set_call_turn(), end_call(), reap_stale_calls() and settle_calls() do to a call.",
        ),
        ("FUNCTION oblivion.credit_account(text,integer,text,text,uuid,integer)", "Adds tokens once for each key."),
        ("FUNCTION oblivion.call_quote(text,text,boolean,text)", "What public.call_quote() does, as the owner."),
        (
            "FUNCTION oblivion.start_call(text,text,text,boolean,text,text)",
            "What public.start_call() does, as the owner.",
        ),
        ("FUNCTION oblivion.explain_call(uuid,text)", "What public.explain_call() does, as the owner."),
        ("FUNCTION oblivion.top_up(text,integer,text)", "What public.top_up() does, as the owner."),
        ("FUNCTION oblivion.refund_call(uuid,integer,text)", "What public.refund_call() does, as the owner."),
        ("FUNCTION oblivion.reap_stale_calls(interval,integer)", "What public.reap_stale_calls() does, as the owner."),
        ("FUNCTION oblivion.settle_calls(integer)", "What public.settle_calls() does, as the owner."),
        (
            "FUNCTION public.call_quote(text,text,boolean)",
            "What a call would cost. mode: video or voice-only. Returns a row: status (ok; short, not a minute; not_billed, no account; unknown, another''s), tokens_per_minute, rate_from (the date of that rate), balance (tokens), minutes_left (whole minutes that it covers). Errors: 22023 unknown mode; 55000 no rate.",
        ),
        (
            "FUNCTION public.start_call(text,text,text,boolean,text)",
            "Starts a metered call by the server''s clock. mode: video or voice-only. With client_key, 1 to 200 characters, a repeated start gives the call of the first one. Returns a row. status: ok; short, the balance did not cover it; not_billed, nobody pays; unsettled, billing failed and is made up for later; ended, it had ended before; unknown, no such call, or not the caller''s. charged and shortfall: tokens, by this time. balance: tokens left. minutes_billed: started minutes in all. minutes_left: whole minutes that the balance covers. credit_cost: tokens due in all. Errors: 22023 unknown mode, no room, or a key of another length; 23505 a key that is known from another room or mode; 42501 another''s user_id; 55000 no rate.",
        ),
        (
            "FUNCTION public.tick_call(uuid)",
            "Bills the minutes that have started; one that is lost, doubled or late changes no total. Returns a row. status: ok; short, the balance did not cover it; not_billed, nobody pays; unsettled, billing failed and is made up for later; ended, it had ended before; unknown, no such call, or not the caller''s. charged and shortfall: tokens, by this time. balance: tokens left. minutes_billed: started minutes in all. minutes_left: whole minutes that the balance covers. credit_cost: tokens due in all.",
        ),
        (
            "FUNCTION public.set_call_turn(uuid,boolean)",
            "Bills the minutes that have started, and says whether a TURN relay carries the media from now on, which prices the minutes to come. Returns a row. status: ok; short, the balance did not cover it; not_billed, nobody pays; unsettled, billing failed and is made up for later; ended, it had ended before; unknown, no such call, or not the caller''s. charged and shortfall: tokens, by this time. balance: tokens left. minutes_billed: started minutes in all. minutes_left: whole minutes that the balance covers. credit_cost: tokens due in all.",
        ),
        (
            "FUNCTION public.end_call(uuid)",
            "Ends the call now, and bills it; it ends although billing fails, and is billed once however often. Returns a row. status: ok; short, the balance did not cover it; not_billed, nobody pays; unsettled, billing failed and is made up for later; ended, it had ended before; unknown, no such call, or not the caller''s. charged and shortfall: tokens, by this time. balance: tokens left. minutes_billed: started minutes in all. minutes_left: whole minutes that the balance covers. credit_cost: tokens due in all.",
        ),
        (
            "FUNCTION public.explain_call(uuid)",
            "The receipt of a metered call: a row for each segment, with its mode and TURN, its first minute and its minutes, the rate and its date, tokens due, charged, and shortfall.",
        ),
        (
            "FUNCTION public.top_up(text,integer,text)",
            "Adds tokens to an account, once for each key of 1 to 200 characters. Returns a row: status (ok; known: the answer is the first one''s) and balance (tokens after it). Errors: 22023 no tokens above zero, or no key; 22003 a balance beyond an integer; 23503 no account; 23505 a key that is known with other content.",
        ),
        (
            "FUNCTION public.refund_call(uuid,integer,text)",
            "Gives tokens of a metered call back, once for each key of 1 to 200 characters, and never more than were charged (22023). An unknown call is a status. Returns a row: status (ok; known: the answer is the first one''s) and balance (tokens after it). Errors: 22023 no tokens above zero, or no key; 22003 a balance beyond an integer; 23503 no account; 23505 a key that is known with other content.",
        ),
        (
            "FUNCTION public.reap_stale_calls(interval,integer)",
            "Ends metered calls that were not seen for that time, at most so many: each is billed to when it was last seen. A late tick revives one. Returns a row for each: status, charged and shortfall (tokens), end_time. Safe to run by several at once. Errors: 22023 a negative argument.",
        ),
        (
            "FUNCTION public.settle_calls(integer)",
            "Bills metered calls that have ended and could not be billed then, at most so many. Returns a row for each: status (ok, short, not_billed; unsettled: oblivion.billing_incidents tells why), charged and shortfall (tokens). Safe to run by several at once. Errors: 22023 a negative argument.",
        ),
        ("FUNCTION oblivion.guard_metered_call()", "Trigger: keeps an API role from what a metered call costs."),
        ("FUNCTION oblivion.settle_deleted_call()", "Trigger: bills a metered call before somebody deletes it."),
        ("FUNCTION oblivion.guard_metered_usage()", "Trigger: keeps an API role from the usage of metered calls."),
    ):
        run_sql(f"COMMENT ON {thing} IS '{comment}'")


def create_ledger() -> None:
    """The ledger, what writes it, and its audit."""
    run_sql(
        """
        CREATE OR REPLACE FUNCTION public.update_updated_at_column()
        RETURNS trigger
        LANGUAGE plpgsql
        SET search_path TO ''
        AS $function$
        BEGIN
          NEW.updated_at = clock_timestamp();
          RETURN NEW;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.write_ledger()
        RETURNS trigger
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        DECLARE
          -- What, of which call, by which key: 'refund 0190c0de-0000-7000-8000-000000000000 key'.
          reason CONSTANT pg_catalog.text := current_setting('oblivion.reason', true);
        BEGIN
          IF TG_OP = 'UPDATE' AND OLD.user_id = NEW.user_id THEN
            IF OLD.tokens_remaining <> NEW.tokens_remaining THEN
              INSERT INTO public.token_ledger (user_id, kind, tokens, balance, session_id, key)
              VALUES (
                NEW.user_id,
                coalesce(nullif(split_part(reason, ' ', 1), ''), 'direct'),
                NEW.tokens_remaining - OLD.tokens_remaining,
                NEW.tokens_remaining,
                nullif(split_part(reason, ' ', 2), '')::pg_catalog.uuid,
                nullif(substr(reason, length(split_part(reason, ' ', 1)) + length(split_part(reason, ' ', 2)) + 3), '')
              );
            END IF;
            RETURN NULL;
          END IF;
          IF TG_OP <> 'INSERT' THEN
            INSERT INTO public.token_ledger (user_id, kind, tokens, balance)
            VALUES (OLD.user_id, 'closing', -OLD.tokens_remaining, 0);
          END IF;
          IF TG_OP <> 'DELETE' THEN
            INSERT INTO public.token_ledger (user_id, kind, tokens, balance)
            VALUES (NEW.user_id, 'opening', NEW.tokens_remaining, NEW.tokens_remaining);
          END IF;
          RETURN NULL;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.close_ledger()
        RETURNS trigger
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        BEGIN
          INSERT INTO public.token_ledger (user_id, kind, tokens, balance)
          SELECT a.user_id, 'closing', -a.tokens_remaining, 0
          FROM public.user_accounts AS a;
          RETURN NULL;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE TRIGGER open_ledger AFTER INSERT ON public.user_accounts
          FOR EACH ROW
          EXECUTE FUNCTION oblivion.write_ledger()
        """
    )
    run_sql(
        """
        CREATE TRIGGER write_ledger AFTER UPDATE ON public.user_accounts
          FOR EACH ROW
          EXECUTE FUNCTION oblivion.write_ledger()
        """
    )
    run_sql(
        """
        CREATE TRIGGER close_ledger AFTER DELETE ON public.user_accounts
          FOR EACH ROW
          EXECUTE FUNCTION oblivion.write_ledger()
        """
    )
    run_sql(
        """
        CREATE TRIGGER close_ledger_of_all BEFORE TRUNCATE ON public.user_accounts
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.close_ledger()
        """
    )
    run_sql("ALTER TABLE public.call_sessions SET (fillfactor = 85)")
    run_sql(
        """
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
        )
        """
    )
    run_sql("CREATE UNIQUE INDEX idx_token_ledger_key ON public.token_ledger (user_id, key) WHERE key IS NOT NULL")
    run_sql("ALTER TABLE public.token_ledger ENABLE ROW LEVEL SECURITY")
    run_sql(
        """
        CREATE POLICY token_ledger_select ON public.token_ledger
          FOR SELECT
          TO PUBLIC
          USING (oblivion.open_access() OR oblivion.is_service_role() OR user_id = (( SELECT oblivion.current_user_id() AS current_user_id)))
        """
    )
    run_sql(
        """
        CREATE POLICY token_ledger_insert ON public.token_ledger
          FOR INSERT
          TO PUBLIC
          WITH CHECK (false)
        """
    )
    run_sql(
        """
        CREATE POLICY token_ledger_update ON public.token_ledger
          FOR UPDATE
          TO PUBLIC
          USING (false)
          WITH CHECK (false)
        """
    )
    run_sql(
        """
        CREATE POLICY token_ledger_delete ON public.token_ledger
          FOR DELETE
          TO PUBLIC
          USING (false)
        """
    )
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON SEQUENCE public.token_ledger_id_seq FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON SEQUENCE public.token_ledger_id_seq FROM %I CASCADE', api_role);
          END LOOP;
        END
        $$
        """
    )
    run_sql(
        """
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
        $$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.trim_ledger(before timestamp with time zone)
        RETURNS bigint
        LANGUAGE sql
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT pg_advisory_xact_lock(hashtextextended('oblivion.trim_ledger'::text, (0)::bigint)) AS pg_advisory_xact_lock;
        WITH past AS (
                  SELECT l.user_id,
                     max(l.id) AS last
                    FROM public.token_ledger l
                   WHERE (l.created_at < trim_ledger.before)
                   GROUP BY l.user_id
                  HAVING (count(*) > 1)
                 ), trimmed AS (
                  DELETE FROM public.token_ledger l
                    USING past p
                   WHERE ((l.user_id = p.user_id) AND (l.id <= p.last))
                   RETURNING l.user_id,
                     l.id,
                     l.created_at,
                     l.balance,
                     (l.id = p.last) AS is_last
                 ), carried AS (
                  INSERT INTO public.token_ledger (user_id, id, created_at, kind, tokens, balance) OVERRIDING SYSTEM VALUE  SELECT t.user_id,
                             t.id,
                             t.created_at,
                             'carried',
                             t.balance,
                             t.balance
                            FROM trimmed t
                           WHERE t.is_last
                   RETURNING 1 AS "?column?"
                 )
          SELECT (( SELECT count(*) AS count
                    FROM trimmed) - ( SELECT count(*) AS count
                    FROM carried));
        END
        """
    )
    run_sql(
        """
        CREATE VIEW oblivion.balance_audit WITH (security_invoker = true) AS
        SELECT
          COALESCE(a.user_id, l.user_id) AS user_id,
          COALESCE(a.tokens_remaining, 0) AS balance,
          COALESCE(l.tokens, 0::bigint) AS ledger,
          COALESCE(a.tokens_remaining, 0) - COALESCE(l.tokens, 0::bigint) AS drift,
          COALESCE(l.gaps, 0::bigint) AS gaps
        FROM public.user_accounts a
        FULL JOIN ( SELECT entries.user_id,
                  sum(entries.tokens) AS tokens,
                  count(*) FILTER (WHERE entries.balance <> (COALESCE(entries.before, 0) + entries.tokens)) AS gaps
                 FROM ( SELECT token_ledger.user_id,
                          token_ledger.tokens,
                          token_ledger.balance,
                          lag(token_ledger.balance) OVER (PARTITION BY token_ledger.user_id ORDER BY token_ledger.id) AS before
                         FROM public.token_ledger) entries
                GROUP BY entries.user_id) l ON l.user_id = a.user_id
        """
    )
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON TABLE oblivion.balance_audit FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON TABLE oblivion.balance_audit FROM %I CASCADE', api_role);
          END LOOP;
        END
        $$
        """
    )
    run_sql("ALTER TABLE public.token_usage SET (fillfactor = 85)")


def create_meters() -> None:
    """What the engine knows of calls."""
    run_sql(
        """
        CREATE TABLE oblivion.call_meters (
          session_id uuid NOT NULL,
          user_id text,
          client_key text,
          mode text NOT NULL,
          direct_rate integer NOT NULL,
          direct_rate_from timestamp with time zone NOT NULL,
          turn_rate integer NOT NULL,
          turn_rate_from timestamp with time zone NOT NULL,
          segment integer DEFAULT 1 NOT NULL,
          usage_id uuid DEFAULT gen_random_uuid() NOT NULL,
          used_turn boolean NOT NULL,
          tokens_per_minute integer NOT NULL,
          first_minute integer DEFAULT 0 NOT NULL,
          first_second integer DEFAULT 0 NOT NULL,
          due_before bigint DEFAULT 0 NOT NULL,
          shortfall integer DEFAULT 0 NOT NULL,
          refunded integer DEFAULT 0 NOT NULL,
          settled boolean DEFAULT false NOT NULL,
          reaped boolean DEFAULT false NOT NULL,
          has_incident boolean DEFAULT false NOT NULL,
          CONSTRAINT call_meters_pkey PRIMARY KEY (session_id),
          CONSTRAINT call_meters_usage_id_key UNIQUE (usage_id),
          CONSTRAINT call_meters_session_id_fkey FOREIGN KEY (session_id) REFERENCES public.call_sessions(id) ON DELETE CASCADE
        )
        """
    )
    run_sql(
        """
        CREATE UNIQUE INDEX call_meters_client_key ON oblivion.call_meters (user_id, client_key) NULLS NOT DISTINCT
          WHERE client_key IS NOT NULL
        """
    )
    run_sql("CREATE INDEX call_meters_unsettled ON oblivion.call_meters (session_id) WHERE NOT settled")
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON TABLE oblivion.call_meters FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON TABLE oblivion.call_meters FROM %I CASCADE', api_role);
          END LOOP;
        END
        $$
        """
    )
    run_sql(
        """
        CREATE TABLE oblivion.call_segments (
          session_id uuid NOT NULL,
          number integer NOT NULL,
          usage_id uuid NOT NULL,
          used_turn boolean NOT NULL,
          tokens_per_minute integer NOT NULL,
          rate_from timestamp with time zone NOT NULL,
          first_minute integer NOT NULL,
          minutes integer NOT NULL,
          seconds integer NOT NULL,
          due_before bigint NOT NULL,
          due_after bigint NOT NULL,
          shortfall integer NOT NULL,
          CONSTRAINT call_segments_pkey PRIMARY KEY (session_id, number),
          CONSTRAINT call_segments_usage_id_key UNIQUE (usage_id)
        )
        """
    )
    run_sql(
        """
        ALTER TABLE oblivion.call_segments
          ADD CONSTRAINT call_segments_session_id_fkey FOREIGN KEY (session_id) REFERENCES oblivion.call_meters(session_id) ON DELETE CASCADE
        """
    )
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON TABLE oblivion.call_segments FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON TABLE oblivion.call_segments FROM %I CASCADE', api_role);
          END LOOP;
        END
        $$
        """
    )
    run_sql(
        """
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
        )
        """
    )
    run_sql(
        """
        CREATE UNIQUE INDEX billing_incidents_open ON oblivion.billing_incidents (session_id)
          WHERE resolved_at IS NULL
        """
    )
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON SEQUENCE oblivion.billing_incidents_id_seq FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON SEQUENCE oblivion.billing_incidents_id_seq FROM %I CASCADE', api_role);
          END LOOP;
        END
        $$
        """
    )
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON TABLE oblivion.billing_incidents FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON TABLE oblivion.billing_incidents FROM %I CASCADE', api_role);
          END LOOP;
        END
        $$
        """
    )


def create_engine() -> None:
    """What runs as the owner."""
    run_sql(
        """
        CREATE FUNCTION oblivion.may_act_for(user_id text, caller text)
        RETURNS boolean
        LANGUAGE sql
        STABLE
        SET search_path TO ''
        RETURN (oblivion.open_access() OR (user_id IS NULL) OR starts_with(user_id, 'anonymous_'::text) OR (caller = 'service_role'::text) OR (NOT (user_id IS DISTINCT FROM oblivion.current_user_id())) OR pg_has_role((caller)::name, CURRENT_USER, 'USAGE'::text))
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.check_key(key text, name text)
        RETURNS void
        LANGUAGE plpgsql
        IMMUTABLE
        SET search_path TO ''
        AS $function$
        BEGIN
          IF key = '' OR length(key) > 200 THEN
            RAISE invalid_parameter_value
              USING MESSAGE = format('%s has %s characters', name, length(key)), HINT = 'Give 1 to 200, such as a random UUID';
          END IF;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.note_incident(call uuid, payer text, attempted text, code text, error text)
        RETURNS void
        LANGUAGE plpgsql
        SET search_path TO ''
        AS $function$
        BEGIN
          INSERT INTO oblivion.billing_incidents AS i (session_id, user_id, action, error_code, message)
          VALUES (call, payer, attempted, code, error)
          ON CONFLICT (session_id) WHERE resolved_at IS NULL DO UPDATE
          SET
            action = excluded.action,
            error_code = excluded.error_code,
            message = excluded.message,
            attempts = i.attempts + 1,
            last_at = excluded.last_at;
        EXCEPTION
          WHEN OTHERS THEN
            RAISE WARNING 'No incident noted for call %, which could not be billed (%: %): %', call, code, error, SQLERRM;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.note_outcome(call uuid, status text, has_ended boolean, is_reaped boolean, had_incident boolean)
        RETURNS void
        LANGUAGE plpgsql
        SET search_path TO ''
        AS $function$
        BEGIN
          UPDATE oblivion.call_meters AS m
          SET settled = has_ended AND status <> 'unsettled', reaped = is_reaped, has_incident = status = 'unsettled'
          WHERE m.session_id = call;
          IF had_incident AND status <> 'unsettled' THEN
            UPDATE oblivion.billing_incidents AS i
            SET resolved_at = clock_timestamp()
            WHERE i.session_id = call AND i.resolved_at IS NULL;
          END IF;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.bill_call(meter oblivion.call_meters, user_id text, start_time timestamp with time zone, billed integer, until timestamp with time zone, action text, OUT status text, OUT charged integer, OUT shortfall integer, OUT balance integer, OUT minutes integer, OUT minutes_left integer, OUT cost integer)
        RETURNS record
        LANGUAGE plpgsql
        SET search_path TO ''
        AS $function$
        DECLARE
          seconds CONSTANT double precision := greatest(0, date_part('epoch', until - start_time));
          patience CONSTANT pg_catalog.text := current_setting('lock_timeout');
          -- The segment that is billed: the meter's own, with no number, unless one before it could not be.
          usage_id pg_catalog.uuid;
          rate integer;
          turn boolean;
          due_before bigint;
          due_after bigint;
          length integer;
          segment integer;
          due bigint;
          paid integer;
          setting pg_catalog.text;
        BEGIN
          status := 'not_billed';
          charged := 0;
          shortfall := 0;
          minutes := 0;
          cost := billed;
          IF user_id IS NULL OR starts_with(user_id, 'anonymous_') THEN
            RETURN;
          END IF;
          BEGIN
            minutes := ceil(seconds / 60);
            IF patience = '0' THEN
              -- Somebody who holds an account for long does not keep a call from its end, nor makes the statement time out.
              setting := current_setting('statement_timeout');
              setting := set_config('lock_timeout', CASE
                WHEN setting IN ('0', '3s', '8s') THEN '1500ms'
                ELSE ceil(least(1500, 500 * date_part('epoch', setting::interval)))::pg_catalog.text
              END, true);
            END IF;
            LOOP
              IF cost < meter.due_before THEN
                SELECT s.number, s.usage_id, s.tokens_per_minute, s.used_turn, s.due_before, s.due_after, s.seconds
                INTO segment, usage_id, rate, turn, due_before, due_after, length
                FROM oblivion.call_segments AS s
                WHERE s.session_id = meter.session_id AND s.due_after > cost
                ORDER BY s.number
                LIMIT 1;
              ELSE
                segment := NULL;
                usage_id := meter.usage_id;
                rate := meter.tokens_per_minute;
                turn := meter.used_turn;
                due_before := meter.due_before;
                due_after := due_before + (minutes - meter.first_minute)::bigint * rate;
                length := floor(seconds) - meter.first_second;
              END IF;
              due := greatest(0, due_after - cost);
              IF due > 0 THEN
                IF cost + due > 999999 THEN
                  RAISE numeric_value_out_of_range
                    USING MESSAGE = format('The call would cost %s tokens, more than credit_cost can hold', cost + due),
                      HINT = 'Set its start_time or end_time right, then call settle_calls()';
                END IF;
                setting := set_config('oblivion.reason', 'charge ' || meter.session_id, true);
                UPDATE public.user_accounts AS a
                SET tokens_remaining = a.tokens_remaining - due
                WHERE a.user_id = bill_call.user_id AND a.tokens_remaining >= due
                RETURNING a.tokens_remaining INTO balance;
                IF FOUND THEN
                  paid := due;
                ELSE
                  SELECT a.tokens_remaining INTO balance
                  FROM public.user_accounts AS a
                  WHERE a.user_id = bill_call.user_id
                  FOR NO KEY UPDATE;
                  paid := CASE WHEN FOUND THEN least(balance, due) END;
                  balance := balance - paid;
                  UPDATE public.user_accounts AS a
                  SET tokens_remaining = bill_call.balance
                  WHERE a.user_id = bill_call.user_id AND paid > 0;
                  IF segment IS NULL THEN
                    UPDATE oblivion.call_meters AS m
                    SET shortfall = m.shortfall + due - paid
                    WHERE m.session_id = meter.session_id AND paid < due;
                  ELSE
                    UPDATE oblivion.call_segments AS s
                    SET shortfall = s.shortfall + due - paid
                    WHERE s.session_id = meter.session_id AND s.number = segment AND paid < due;
                  END IF;
                END IF;
                setting := set_config('oblivion.reason', '', true);
                EXIT WHEN paid IS NULL;
                charged := charged + paid;
                shortfall := shortfall + due - paid;
                cost := cost + due;
              ELSE
                SELECT a.tokens_remaining INTO balance
                FROM public.user_accounts AS a
                WHERE a.user_id = bill_call.user_id;
                EXIT WHEN NOT FOUND;
              END IF;
              IF due > 0 OR rate = 0 AND length > 0 THEN
                UPDATE public.token_usage AS u
                SET tokens_used = cost - due_before, duration_seconds = greatest(0, length)
                WHERE u.id = usage_id;
                IF NOT FOUND THEN
                  INSERT INTO public.token_usage (
                    id, user_id, session_id, tokens_used, mode, used_turn, duration_seconds, "timestamp"
                  )
                  VALUES (
                    usage_id,
                    bill_call.user_id,
                    meter.session_id,
                    cost - due_before,
                    meter.mode,
                    turn,
                    greatest(0, length),
                    clock_timestamp()
                  );
                END IF;
              END IF;
              IF segment IS NULL THEN
                status := CASE WHEN shortfall > 0 THEN 'short' ELSE 'ok' END;
                minutes_left := balance / nullif(rate, 0);
                EXIT;
              END IF;
            END LOOP;
            IF status = 'not_billed' THEN
              minutes := 0;
            END IF;
            IF patience = '0' THEN
              setting := set_config('lock_timeout', '0', true);
            END IF;
          EXCEPTION
            WHEN OTHERS THEN
              -- The call goes on, or ends, all the same; settle_calls(), or its next tick, collects.
              status := 'unsettled';
              charged := 0;
              shortfall := 0;
              balance := NULL;
              minutes := NULL;
              minutes_left := NULL;
              cost := billed;
              PERFORM oblivion.note_incident(meter.session_id, user_id, action, SQLSTATE, SQLERRM);
          END;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.turn_call(meter oblivion.call_meters, turn boolean, seconds double precision)
        RETURNS integer
        LANGUAGE plpgsql
        SET search_path TO ''
        AS $function$
        DECLARE
          minute CONSTANT integer := ceil(greatest(0, seconds) / 60);
          second CONSTANT integer := floor(greatest(0, seconds));
          rate CONSTANT integer := CASE WHEN turn THEN meter.turn_rate ELSE meter.direct_rate END;
          due_after CONSTANT bigint := meter.due_before + (minute - meter.first_minute)::bigint * meter.tokens_per_minute;
        BEGIN
          IF minute > meter.first_minute THEN
            -- Of the meter as it is now, with the shortfall of the bill that was just made.
            INSERT INTO oblivion.call_segments (
              session_id, number, usage_id, used_turn, tokens_per_minute, rate_from,
              first_minute, minutes, seconds, due_before, due_after, shortfall
            )
            SELECT
              m.session_id,
              m.segment,
              m.usage_id,
              m.used_turn,
              m.tokens_per_minute,
              CASE WHEN m.used_turn THEN m.turn_rate_from ELSE m.direct_rate_from END,
              m.first_minute,
              minute - m.first_minute,
              second - m.first_second,
              m.due_before,
              due_after,
              m.shortfall
            FROM oblivion.call_meters AS m
            WHERE m.session_id = meter.session_id;
            UPDATE oblivion.call_meters AS m
            SET
              segment = m.segment + 1,
              usage_id = gen_random_uuid(),
              first_minute = minute,
              first_second = second,
              due_before = due_after,
              shortfall = 0
            WHERE m.session_id = meter.session_id;
          END IF;
          UPDATE oblivion.call_meters AS m
          SET used_turn = turn, tokens_per_minute = rate
          WHERE m.session_id = meter.session_id;
          RETURN rate;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.rate_card(INOUT mode text, used_turn boolean, OUT tokens_per_minute integer, OUT effective_from timestamp with time zone)
        RETURNS record
        LANGUAGE plpgsql
        STABLE
        SET search_path TO ''
        AS $function$
        BEGIN
          IF mode IS NULL OR mode NOT IN ('video', 'voice', 'voice-only') THEN
            RAISE invalid_parameter_value
              USING MESSAGE = format('Unknown mode: %s', coalesce(mode, 'NULL')), HINT = 'Use video or voice-only';
          END IF;
          mode := CASE mode WHEN 'voice-only' THEN 'voice' ELSE mode END;
          SELECT r.tokens_per_minute, r.effective_from
          INTO tokens_per_minute, effective_from
          FROM public.token_rates AS r
          WHERE r.mode = rate_card.mode AND r.used_turn = rate_card.used_turn AND r.effective_from <= clock_timestamp()
          ORDER BY r.effective_from DESC
          LIMIT 1;
          IF NOT FOUND THEN
            RAISE object_not_in_prerequisite_state
              USING MESSAGE = format('No rate for %s%s', mode, CASE WHEN used_turn THEN ' over TURN' ELSE '' END),
                HINT = 'Insert one into token_rates';
          END IF;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.advance_unmetered_call(session_id uuid, action text, caller text)
        RETURNS text
        LANGUAGE plpgsql
        SET search_path TO ''
        AS $function$
        DECLARE
          call pg_catalog.record;
        BEGIN
          SELECT c.user_id, c.end_time
          INTO call
          FROM public.call_sessions AS c
          WHERE c.id = advance_unmetered_call.session_id
          FOR NO KEY UPDATE;
          IF NOT FOUND OR NOT oblivion.may_act_for(call.user_id, caller) THEN
            RETURN 'unknown';
          ELSIF call.end_time IS NOT NULL THEN
            RETURN 'ended';
          ELSIF action = 'end' THEN
            UPDATE public.call_sessions AS c
            SET end_time = clock_timestamp()
            WHERE c.id = advance_unmetered_call.session_id;
          END IF;
          RETURN 'not_billed';
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.advance_call(INOUT session_id uuid, action text, turn boolean, caller text, OUT status text, OUT charged integer, OUT shortfall integer, OUT balance integer, OUT minutes_billed integer, OUT minutes_left integer, OUT credit_cost numeric)
        RETURNS record
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        DECLARE
          call pg_catalog.record;
          meter oblivion.call_meters;
          bill pg_catalog.record;
          -- The server's, read once the lock is held.
          clock timestamp with time zone;
          until timestamp with time zone;
          end_at timestamp with time zone;
          stays_reaped boolean;
        BEGIN
          IF action = 'turn' AND turn IS NULL THEN
            RAISE invalid_parameter_value USING MESSAGE = 'used_turn is NULL', HINT = 'Give true or false';
          END IF;
          charged := 0;
          shortfall := 0;
          -- Both are locked, for after a wait PostgreSQL reads anew only what it locks.
          SELECT c.start_time, c.end_time, c.updated_at, c.user_id, c.credit_cost, m AS meter
          INTO call
          FROM public.call_sessions AS c
          JOIN oblivion.call_meters AS m ON m.session_id = c.id
          WHERE c.id = advance_call.session_id
          FOR NO KEY UPDATE;
          IF NOT FOUND THEN
            status := oblivion.advance_unmetered_call(session_id, action, caller);
            RETURN;
          END IF;
          clock := clock_timestamp();
          IF NOT (oblivion.open_access() OR oblivion.may_act_for(call.user_id, caller)) THEN
            status := 'unknown';
            RETURN;
          END IF;
          meter := call.meter;
          credit_cost := call.credit_cost;
          IF call.end_time IS NULL OR meter.reaped AND action IN ('tick', 'turn', 'end') THEN
            -- Whom a reaper took for gone has come back: what he missed is billed now.
            until := CASE action WHEN 'reap' THEN greatest(call.updated_at, call.start_time) ELSE clock END;
            end_at := CASE WHEN action IN ('end', 'reap') THEN until END;
          ELSIF meter.settled OR action IN ('tick', 'turn') THEN
            status := 'ended';
            SELECT a.tokens_remaining INTO balance FROM public.user_accounts AS a WHERE a.user_id = call.user_id;
            minutes_billed := ceil(greatest(0, date_part('epoch', call.end_time - call.start_time)) / 60);
            RETURN;
          ELSE
            until := call.end_time;
            end_at := call.end_time;
          END IF;

          bill := oblivion.bill_call(meter, call.user_id, call.start_time, call.credit_cost::integer, until, action);
          status := bill.status;
          charged := bill.charged;
          shortfall := bill.shortfall;
          balance := bill.balance;
          minutes_billed := bill.minutes;
          minutes_left := bill.minutes_left;
          credit_cost := bill.cost;
          IF action = 'turn' AND turn <> meter.used_turn THEN
            minutes_left := balance / nullif(
              oblivion.turn_call(meter, turn, greatest(
                date_part('epoch', until - call.start_time),
                -- Where the clock was set back: what is billed stays so.
                60 * (meter.first_minute + (bill.cost - meter.due_before) / nullif(meter.tokens_per_minute, 0))
              )), 0
            );
          END IF;
          -- Also where nothing is due: the trigger of updated_at notes when the call was last seen.
          UPDATE public.call_sessions AS c
          SET
            credit_cost = bill.cost,
            end_time = end_at,
            used_turn = CASE action WHEN 'turn' THEN turn ELSE c.used_turn END
          WHERE c.id = advance_call.session_id;
          stays_reaped := action = 'reap' OR meter.reaped AND action = 'settle';
          IF (meter.settled, meter.reaped, meter.has_incident)
            <> (end_at IS NOT NULL AND status <> 'unsettled', stays_reaped, status = 'unsettled')
          THEN
            PERFORM oblivion.note_outcome(session_id, status, end_at IS NOT NULL, stays_reaped, meter.has_incident);
          END IF;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.credit_account(INOUT user_id text, INOUT tokens integer, INOUT key text, kind text, session_id uuid, refundable integer, OUT status text, OUT balance integer, OUT credited_at timestamp with time zone)
        RETURNS record
        LANGUAGE plpgsql
        SET search_path TO ''
        AS $function$
        DECLARE
          entry pg_catalog.record;
        BEGIN
          IF tokens IS NULL OR tokens <= 0 THEN
            RAISE invalid_parameter_value
              USING MESSAGE = format('tokens is %s', coalesce(tokens::pg_catalog.text, 'NULL')), HINT = 'Give a number above zero';
          END IF;
          IF key IS NULL THEN
            RAISE invalid_parameter_value
              USING MESSAGE = 'A credit needs a key', HINT = 'Give one of its own to each, and the same one to each retry';
          END IF;
          PERFORM oblivion.check_key(key, 'key');
          SELECT a.tokens_remaining INTO balance
          FROM public.user_accounts AS a
          WHERE a.user_id = credit_account.user_id
          FOR NO KEY UPDATE;
          IF NOT FOUND THEN
            RAISE foreign_key_violation
              USING MESSAGE = format('No account: %s', coalesce(left(user_id, 200), 'NULL')),
                HINT = 'Insert it into user_accounts first';
          END IF;
          SELECT l.kind, l.tokens, l.session_id, l.balance, l.created_at
          INTO entry
          FROM public.token_ledger AS l
          WHERE l.user_id = credit_account.user_id AND l.key = credit_account.key;
          IF FOUND THEN
            IF (entry.kind, entry.tokens) <> (credit_account.kind, credit_account.tokens)
              OR entry.session_id IS DISTINCT FROM credit_account.session_id
            THEN
              RAISE unique_violation
                USING MESSAGE = format('key is known from another %s, of %s tokens', entry.kind, entry.tokens),
                  HINT = 'Give each credit a key of its own';
            END IF;
            status := 'known';
            balance := entry.balance;
            credited_at := entry.created_at;
            RETURN;
          END IF;
          IF tokens > refundable THEN
            RAISE invalid_parameter_value
              USING MESSAGE = format('A refund of %s tokens, where %s are left of what was charged', tokens, refundable),
                HINT = 'explain_call() gives what was charged';
          END IF;
          IF balance::bigint + tokens > 2147483647 THEN
            RAISE numeric_value_out_of_range
              USING MESSAGE = format('The balance would be %s, beyond an integer', balance::bigint + tokens),
                HINT = 'Give fewer tokens';
          END IF;
          PERFORM set_config('oblivion.reason', concat_ws(' ', kind, coalesce(session_id::pg_catalog.text, ''), key), true);
          UPDATE public.user_accounts AS a
          SET tokens_remaining = a.tokens_remaining + credit_account.tokens
          WHERE a.user_id = credit_account.user_id
          RETURNING a.tokens_remaining INTO balance;
          PERFORM set_config('oblivion.reason', '', true);
          status := 'ok';
          credited_at := clock_timestamp();
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.call_quote(user_id text, mode text, used_turn boolean, caller text, OUT status text, OUT tokens_per_minute integer, OUT rate_from timestamp with time zone, OUT balance integer, OUT minutes_left integer)
        RETURNS record
        LANGUAGE plpgsql
        STABLE SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        BEGIN
          SELECT r.tokens_per_minute, r.effective_from
          INTO tokens_per_minute, rate_from
          FROM oblivion.rate_card(mode, coalesce(used_turn, false)) AS r;
          IF NOT (oblivion.open_access() OR oblivion.may_act_for(user_id, caller)) THEN
            status := 'unknown';
            RETURN;
          END IF;
          SELECT a.tokens_remaining INTO balance
          FROM public.user_accounts AS a
          WHERE a.user_id = call_quote.user_id AND NOT starts_with(a.user_id, 'anonymous_');
          status := CASE WHEN balance IS NULL THEN 'not_billed' WHEN balance < tokens_per_minute THEN 'short' ELSE 'ok' END;
          minutes_left := balance / nullif(tokens_per_minute, 0);
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.start_call(user_id text, room_id text, mode text, used_turn boolean, client_key text, caller text, OUT session_id uuid, OUT status text, OUT charged integer, OUT shortfall integer, OUT balance integer, OUT minutes_billed integer, OUT minutes_left integer, OUT credit_cost numeric)
        RETURNS record
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        DECLARE
          called_mode CONSTANT pg_catalog.text := CASE mode WHEN 'voice' THEN 'voice-only' ELSE mode END;
          turn CONSTANT boolean := coalesce(used_turn, false);
          quote pg_catalog.record;
          known pg_catalog.record;
          card pg_catalog.record;
        BEGIN
          quote := oblivion.call_quote(user_id, mode, turn, caller);
          IF NOT (oblivion.open_access() OR oblivion.may_act_for(user_id, caller)) THEN
            RAISE insufficient_privilege
              USING MESSAGE = 'A call of another user cannot be started',
                HINT = 'Give as user_id who is signed in, or NULL for a visitor';
          END IF;
          IF room_id IS NULL THEN
            RAISE invalid_parameter_value USING MESSAGE = 'A call needs a room', HINT = 'Give room_id';
          END IF;
          PERFORM oblivion.check_key(client_key, 'client_key');
          charged := 0;
          shortfall := 0;
          minutes_billed := 0;
          credit_cost := 0;

          FOR attempt IN 1..5 LOOP
            SELECT c.id, c.room_id, c.mode, c.end_time, c.credit_cost
            INTO known
            FROM oblivion.call_meters AS m
            JOIN public.call_sessions AS c ON c.id = m.session_id
            -- For IS NOT DISTINCT FROM the index of keys would be read from end to end.
            WHERE m.client_key = start_call.client_key
              AND (m.user_id = start_call.user_id OR m.user_id IS NULL AND start_call.user_id IS NULL);
            IF FOUND THEN
              IF (known.room_id, known.mode) <> (start_call.room_id, called_mode) THEN
                RAISE unique_violation
                  USING MESSAGE = 'client_key is known from another call of this user, in another room or mode',
                    HINT = 'Give each call a key of its own, such as a random UUID';
              END IF;
              session_id := known.id;
              credit_cost := known.credit_cost;
              minutes_billed := NULL;
              EXIT;
            END IF;
            BEGIN
              INSERT INTO public.call_sessions AS c (room_id, start_time, mode, used_turn, credit_cost, user_id)
              VALUES (start_call.room_id, clock_timestamp(), called_mode, turn, 0, start_call.user_id)
              RETURNING c.id INTO session_id;
              INSERT INTO oblivion.call_meters (
                session_id, user_id, client_key, mode, used_turn, tokens_per_minute,
                direct_rate, direct_rate_from, turn_rate, turn_rate_from
              )
              SELECT
                start_call.session_id,
                start_call.user_id,
                start_call.client_key,
                direct.mode,
                turn,
                quote.tokens_per_minute,
                direct.tokens_per_minute,
                direct.effective_from,
                over_turn.tokens_per_minute,
                over_turn.effective_from
              FROM oblivion.rate_card(called_mode, false) AS direct
              CROSS JOIN oblivion.rate_card(called_mode, true) AS over_turn;
              EXIT;
            EXCEPTION
              WHEN unique_violation THEN
                -- The same start, at the same time: what that one made is there now.
                IF client_key IS NULL OR attempt = 5 THEN
                  RAISE;
                END IF;
            END;
          END LOOP;
          status := CASE WHEN known.end_time IS NOT NULL THEN 'ended' ELSE quote.status END;
          balance := quote.balance;
          minutes_left := quote.minutes_left;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.explain_call(session_id uuid, caller text)
        RETURNS TABLE(segment integer, mode text, used_turn boolean, first_minute integer, minutes integer, tokens_per_minute integer, rate_from timestamp with time zone, due integer, charged integer, shortfall integer)
        LANGUAGE sql
        STABLE SECURITY DEFINER
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT s.number,
             m.mode,
             s.used_turn,
             (s.first_minute + 1),
                 CASE
                     WHEN (s.tokens_per_minute > 0) THEN (p.due / s.tokens_per_minute)
                     ELSE GREATEST(0, s.minutes)
                 END AS "greatest",
             s.tokens_per_minute,
             s.rate_from,
             p.due,
             (p.due - s.shortfall),
             s.shortfall
            FROM (((oblivion.call_meters m
              JOIN public.call_sessions c ON ((c.id = m.session_id)))
              CROSS JOIN LATERAL ( SELECT call_segments.number,
                     call_segments.used_turn,
                     call_segments.tokens_per_minute,
                     call_segments.rate_from,
                     call_segments.first_minute,
                     call_segments.minutes,
                     call_segments.due_before,
                     call_segments.due_after,
                     call_segments.shortfall
                    FROM oblivion.call_segments
                   WHERE (call_segments.session_id = m.session_id)
                 UNION ALL
                  SELECT m.segment,
                     m.used_turn,
                     m.tokens_per_minute,
                         CASE
                             WHEN m.used_turn THEN m.turn_rate_from
                             ELSE m.direct_rate_from
                         END AS direct_rate_from,
                     m.first_minute,
                     ((ceil((date_part('epoch'::text, (COALESCE(c.end_time, c.updated_at) - c.start_time)) / (60)::double precision)))::integer - m.first_minute),
                     m.due_before,
                     (c.credit_cost)::bigint AS credit_cost,
                     m.shortfall) s)
              CROSS JOIN LATERAL ( SELECT (GREATEST((0)::bigint, (LEAST(s.due_after, (c.credit_cost)::bigint) - s.due_before)))::integer AS due) p)
           WHERE ((m.session_id = explain_call.session_id) AND oblivion.may_act_for(c.user_id, explain_call.caller))
           ORDER BY s.number;
        END
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.top_up(INOUT user_id text, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer)
        RETURNS record
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        BEGIN
          SELECT c.status, c.balance
          INTO status, balance
          FROM oblivion.credit_account(user_id, tokens, key, 'top_up', NULL, NULL) AS c;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.refund_call(INOUT session_id uuid, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer)
        RETURNS record
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        DECLARE
          call pg_catalog.record;
        BEGIN
          PERFORM FROM public.call_sessions AS c WHERE c.id = refund_call.session_id FOR NO KEY UPDATE;
          SELECT m.user_id, c.credit_cost::integer - m.refunded - m.shortfall - coalesce((
            SELECT sum(s.shortfall) FROM oblivion.call_segments AS s WHERE s.session_id = m.session_id
          ), 0)::integer AS refundable
          INTO call
          FROM oblivion.call_meters AS m
          JOIN public.call_sessions AS c ON c.id = m.session_id
          WHERE m.session_id = refund_call.session_id;
          IF NOT FOUND THEN
            status := 'unknown';
            RETURN;
          END IF;
          SELECT c.status, c.balance
          INTO status, balance
          FROM oblivion.credit_account(call.user_id, tokens, key, 'refund', session_id, call.refundable) AS c;
          UPDATE oblivion.call_meters AS m
          SET refunded = m.refunded + refund_call.tokens
          WHERE m.session_id = refund_call.session_id AND refund_call.status = 'ok';
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.reap_stale_calls(not_seen_for interval, max_calls integer)
        RETURNS TABLE(session_id uuid, status text, charged integer, shortfall integer, end_time timestamp with time zone)
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        SET lock_timeout TO '1s'
        AS $function$
        DECLARE
          call pg_catalog.record;
          held pg_catalog.text;
        BEGIN
          IF not_seen_for IS NULL OR not_seen_for < interval '0' OR max_calls IS NULL OR max_calls < 0 THEN
            RAISE invalid_parameter_value
              USING MESSAGE = format('Calls not seen for %s, at most %s', not_seen_for, max_calls),
                HINT = 'Give a time and a number of zero or more';
          END IF;
          FOR call IN
            SELECT s.id, s.user_id
            FROM (
              SELECT c.id, c.user_id
              FROM oblivion.call_meters AS m
              JOIN public.call_sessions AS c ON c.id = m.session_id
              WHERE NOT m.settled AND c.end_time IS NULL AND c.updated_at <= clock_timestamp() - not_seen_for
              LIMIT max_calls
              FOR NO KEY UPDATE OF c SKIP LOCKED
            ) AS s
            ORDER BY s.user_id
          LOOP
            CONTINUE WHEN call.user_id = held;
            BEGIN
              PERFORM FROM public.user_accounts AS a WHERE a.user_id = call.user_id FOR NO KEY UPDATE;
            EXCEPTION
              WHEN lock_not_available OR deadlock_detected THEN
                -- Whose account somebody holds for long has his turn another time.
                held := call.user_id;
                CONTINUE;
            END;
            BEGIN
              SELECT a.session_id, a.status, a.charged, a.shortfall
              INTO session_id, status, charged, shortfall
              FROM oblivion.advance_call(call.id, 'reap', NULL, 'service_role') AS a;
            EXCEPTION
              WHEN OTHERS THEN
                session_id := call.id;
                status := 'unsettled';
                charged := 0;
                shortfall := 0;
                PERFORM oblivion.note_incident(call.id, call.user_id, 'reap', SQLSTATE, SQLERRM);
                UPDATE oblivion.call_meters AS m SET has_incident = true WHERE m.session_id = call.id;
            END;
            SELECT c.end_time INTO end_time FROM public.call_sessions AS c WHERE c.id = call.id;
            RETURN NEXT;
          END LOOP;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.settle_calls(max_calls integer)
        RETURNS TABLE(session_id uuid, status text, charged integer, shortfall integer)
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        SET lock_timeout TO '1s'
        AS $function$
        DECLARE
          call pg_catalog.record;
          held pg_catalog.text;
        BEGIN
          IF max_calls IS NULL OR max_calls < 0 THEN
            RAISE invalid_parameter_value
              USING MESSAGE = format('At most %s calls', max_calls), HINT = 'Give a number of zero or more';
          END IF;
          FOR call IN
            SELECT s.id, s.user_id
            FROM (
              SELECT c.id, c.user_id
              FROM oblivion.call_meters AS m
              JOIN public.call_sessions AS c ON c.id = m.session_id
              LEFT JOIN oblivion.billing_incidents AS i ON i.session_id = m.session_id AND i.resolved_at IS NULL
              WHERE NOT m.settled AND c.end_time IS NOT NULL
              ORDER BY i.last_at NULLS FIRST
              LIMIT max_calls
              FOR NO KEY UPDATE OF c SKIP LOCKED
            ) AS s
            ORDER BY s.user_id
          LOOP
            CONTINUE WHEN call.user_id = held;
            BEGIN
              PERFORM FROM public.user_accounts AS a WHERE a.user_id = call.user_id FOR NO KEY UPDATE;
            EXCEPTION
              WHEN lock_not_available OR deadlock_detected THEN
                -- Whose account somebody holds for long has his turn another time.
                held := call.user_id;
                CONTINUE;
            END;
            BEGIN
              SELECT a.session_id, a.status, a.charged, a.shortfall
              INTO session_id, status, charged, shortfall
              FROM oblivion.advance_call(call.id, 'settle', NULL, 'service_role') AS a;
            EXCEPTION
              WHEN OTHERS THEN
                session_id := call.id;
                status := 'unsettled';
                charged := 0;
                shortfall := 0;
                PERFORM oblivion.note_incident(call.id, call.user_id, 'settle', SQLSTATE, SQLERRM);
                UPDATE oblivion.call_meters AS m SET has_incident = true WHERE m.session_id = call.id;
            END;
            RETURN NEXT;
          END LOOP;
        END
        $function$
        """
    )


def create_public_functions() -> None:
    """What clients call."""
    run_sql(
        """
        CREATE FUNCTION public.call_quote(user_id text, mode text, used_turn boolean DEFAULT false, OUT status text, OUT tokens_per_minute integer, OUT rate_from timestamp with time zone, OUT balance integer, OUT minutes_left integer)
        RETURNS record
        LANGUAGE sql
        STABLE
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT a.status,
             a.tokens_per_minute,
             a.rate_from,
             a.balance,
             a.minutes_left
            FROM oblivion.call_quote(call_quote.user_id, call_quote.mode, call_quote.used_turn, ((CURRENT_USER)::text COLLATE "default")) a(status, tokens_per_minute, rate_from, balance, minutes_left);
        END
        """
    )
    run_sql(
        """
        CREATE FUNCTION public.start_call(user_id text, room_id text, mode text, used_turn boolean DEFAULT false, client_key text DEFAULT NULL::text, OUT session_id uuid, OUT status text, OUT charged integer, OUT shortfall integer, OUT balance integer, OUT minutes_billed integer, OUT minutes_left integer, OUT credit_cost numeric)
        RETURNS record
        LANGUAGE sql
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT a.session_id,
             a.status,
             a.charged,
             a.shortfall,
             a.balance,
             a.minutes_billed,
             a.minutes_left,
             a.credit_cost
            FROM oblivion.start_call(start_call.user_id, start_call.room_id, start_call.mode, start_call.used_turn, start_call.client_key, ((CURRENT_USER)::text COLLATE "default")) a(session_id, status, charged, shortfall, balance, minutes_billed, minutes_left, credit_cost);
        END
        """
    )
    run_sql(
        """
        CREATE FUNCTION public.tick_call(INOUT session_id uuid, OUT status text, OUT charged integer, OUT shortfall integer, OUT balance integer, OUT minutes_billed integer, OUT minutes_left integer, OUT credit_cost numeric)
        RETURNS record
        LANGUAGE sql
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT a.session_id,
             a.status,
             a.charged,
             a.shortfall,
             a.balance,
             a.minutes_billed,
             a.minutes_left,
             a.credit_cost
            FROM oblivion.advance_call(tick_call.session_id, 'tick'::text, NULL::boolean, ((CURRENT_USER)::text COLLATE "default")) a(session_id, status, charged, shortfall, balance, minutes_billed, minutes_left, credit_cost);
        END
        """
    )
    run_sql(
        """
        CREATE FUNCTION public.set_call_turn(INOUT session_id uuid, used_turn boolean, OUT status text, OUT charged integer, OUT shortfall integer, OUT balance integer, OUT minutes_billed integer, OUT minutes_left integer, OUT credit_cost numeric)
        RETURNS record
        LANGUAGE sql
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT a.session_id,
             a.status,
             a.charged,
             a.shortfall,
             a.balance,
             a.minutes_billed,
             a.minutes_left,
             a.credit_cost
            FROM oblivion.advance_call(set_call_turn.session_id, 'turn'::text, set_call_turn.used_turn, ((CURRENT_USER)::text COLLATE "default")) a(session_id, status, charged, shortfall, balance, minutes_billed, minutes_left, credit_cost);
        END
        """
    )
    run_sql(
        """
        CREATE FUNCTION public.end_call(INOUT session_id uuid, OUT status text, OUT charged integer, OUT shortfall integer, OUT balance integer, OUT minutes_billed integer, OUT minutes_left integer, OUT credit_cost numeric)
        RETURNS record
        LANGUAGE sql
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT a.session_id,
             a.status,
             a.charged,
             a.shortfall,
             a.balance,
             a.minutes_billed,
             a.minutes_left,
             a.credit_cost
            FROM oblivion.advance_call(end_call.session_id, 'end'::text, NULL::boolean, ((CURRENT_USER)::text COLLATE "default")) a(session_id, status, charged, shortfall, balance, minutes_billed, minutes_left, credit_cost);
        END
        """
    )
    run_sql(
        """
        CREATE FUNCTION public.explain_call(session_id uuid)
        RETURNS TABLE(segment integer, mode text, used_turn boolean, first_minute integer, minutes integer, tokens_per_minute integer, rate_from timestamp with time zone, due integer, charged integer, shortfall integer)
        LANGUAGE sql
        STABLE
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT a.segment,
             a.mode,
             a.used_turn,
             a.first_minute,
             a.minutes,
             a.tokens_per_minute,
             a.rate_from,
             a.due,
             a.charged,
             a.shortfall
            FROM oblivion.explain_call(explain_call.session_id, ((CURRENT_USER)::text COLLATE "default")) a(segment, mode, used_turn, first_minute, minutes, tokens_per_minute, rate_from, due, charged, shortfall);
        END
        """
    )
    run_sql(
        """
        CREATE FUNCTION public.top_up(INOUT user_id text, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer)
        RETURNS record
        LANGUAGE sql
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT a.user_id,
             a.tokens,
             a.key,
             a.status,
             a.balance
            FROM oblivion.top_up(top_up.user_id, top_up.tokens, top_up.key) a(user_id, tokens, key, status, balance);
        END
        """
    )
    run_sql(
        """
        CREATE FUNCTION public.refund_call(INOUT session_id uuid, INOUT tokens integer, INOUT key text, OUT status text, OUT balance integer)
        RETURNS record
        LANGUAGE sql
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT a.session_id,
             a.tokens,
             a.key,
             a.status,
             a.balance
            FROM oblivion.refund_call(refund_call.session_id, refund_call.tokens, refund_call.key) a(session_id, tokens, key, status, balance);
        END
        """
    )
    run_sql(
        """
        CREATE FUNCTION public.reap_stale_calls(not_seen_for interval DEFAULT '00:05:00'::interval, max_calls integer DEFAULT 1000)
        RETURNS TABLE(session_id uuid, status text, charged integer, shortfall integer, end_time timestamp with time zone)
        LANGUAGE sql
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT a.session_id,
             a.status,
             a.charged,
             a.shortfall,
             a.end_time
            FROM oblivion.reap_stale_calls(reap_stale_calls.not_seen_for, reap_stale_calls.max_calls) a(session_id, status, charged, shortfall, end_time);
        END
        """
    )
    run_sql(
        """
        CREATE FUNCTION public.settle_calls(max_calls integer DEFAULT 1000)
        RETURNS TABLE(session_id uuid, status text, charged integer, shortfall integer)
        LANGUAGE sql
        SET search_path TO ''
        BEGIN ATOMIC
        SELECT a.session_id,
             a.status,
             a.charged,
             a.shortfall
            FROM oblivion.settle_calls(settle_calls.max_calls) a(session_id, status, charged, shortfall);
        END
        """
    )


def create_guards() -> None:
    """What keeps direct writes from what metered calls cost."""
    run_sql(
        """
        CREATE FUNCTION oblivion.guard_metered_call()
        RETURNS trigger
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        DECLARE
          meter oblivion.call_meters;
          bill pg_catalog.record;
        BEGIN
          SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = OLD.id FOR NO KEY UPDATE;
          IF NOT FOUND THEN
            RETURN NEW;
          END IF;
          IF OLD.end_time IS NULL AND NEW.end_time IS NOT NULL THEN
            NEW.end_time := clock_timestamp();
          ELSE
            NEW.end_time := OLD.end_time;
          END IF;
          NEW.id := OLD.id;
          NEW.start_time := OLD.start_time;
          NEW.mode := OLD.mode;
          NEW.used_turn := OLD.used_turn;
          NEW.credit_cost := OLD.credit_cost;
          NEW.user_id := OLD.user_id;
          NEW.created_at := OLD.created_at;
          IF OLD.end_time IS NULL AND NEW.end_time IS NOT NULL THEN
            bill := oblivion.bill_call(
              meter, OLD.user_id, OLD.start_time, OLD.credit_cost::integer, NEW.end_time, 'end'
            );
            NEW.credit_cost := bill.cost;
            PERFORM oblivion.note_outcome(OLD.id, bill.status, true, false, meter.has_incident);
          END IF;
          RETURN NEW;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE TRIGGER guard_metered_call BEFORE UPDATE ON public.call_sessions
          FOR EACH ROW
          WHEN (CURRENT_USER::text = ANY ('{anon,authenticated,service_role}'::text[]))
          EXECUTE FUNCTION oblivion.guard_metered_call()
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.settle_deleted_call()
        RETURNS trigger
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        DECLARE
          meter oblivion.call_meters;
          bill pg_catalog.record;
        BEGIN
          SELECT m.* INTO meter FROM oblivion.call_meters AS m WHERE m.session_id = OLD.id AND NOT m.settled FOR NO KEY UPDATE;
          IF NOT FOUND THEN
            RETURN OLD;
          END IF;
          bill := oblivion.bill_call(
            meter,
            OLD.user_id,
            OLD.start_time,
            OLD.credit_cost::integer,
            coalesce(OLD.end_time, clock_timestamp()),
            'delete'
          );
          IF bill.status = 'unsettled' THEN
            RAISE object_not_in_prerequisite_state
              USING MESSAGE = format('Call %s cannot be billed, and so not be deleted', OLD.id),
                HINT = 'After end_call() oblivion.billing_incidents tells why';
          END IF;
          PERFORM oblivion.note_outcome(OLD.id, bill.status, true, meter.reaped, meter.has_incident);
          RETURN OLD;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE TRIGGER settle_deleted_call BEFORE DELETE ON public.call_sessions
          FOR EACH ROW
          EXECUTE FUNCTION oblivion.settle_deleted_call()
        """
    )
    run_sql(
        """
        CREATE FUNCTION oblivion.guard_metered_usage()
        RETURNS trigger
        LANGUAGE plpgsql
        SECURITY DEFINER
        SET search_path TO ''
        AS $function$
        BEGIN
          IF EXISTS (SELECT FROM oblivion.call_meters AS m WHERE m.usage_id = OLD.id)
            OR EXISTS (SELECT FROM oblivion.call_segments AS s WHERE s.usage_id = OLD.id)
          THEN
            RETURN CASE TG_OP WHEN 'UPDATE' THEN OLD END;
          END IF;
          RETURN CASE TG_OP WHEN 'UPDATE' THEN NEW ELSE OLD END;
        END
        $function$
        """
    )
    run_sql(
        """
        CREATE TRIGGER guard_metered_usage BEFORE DELETE OR UPDATE ON public.token_usage
          FOR EACH ROW
          WHEN (CURRENT_USER::text = ANY ('{anon,authenticated,service_role}'::text[]))
          EXECUTE FUNCTION oblivion.guard_metered_usage()
        """
    )


def grant_execution(functions: tuple[str, ...], *roles: str) -> None:
    """Let only these roles, where they exist, and the owner execute the functions."""
    names = ", ".join(functions)
    granted = ", ".join(f"'{role}'" for role in roles) or "NULL"
    run_sql(GRANT_EXECUTION.replace("<functions>", names).replace("<roles>", granted))


GRANT_EXECUTION = """
DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON FUNCTION <functions> FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON FUNCTION <functions> FROM %I CASCADE', api_role);
    IF api_role IN (<roles>) THEN
      EXECUTE format('GRANT EXECUTE ON FUNCTION <functions> TO %I', api_role);
    END IF;
  END LOOP;
END
$$
"""


def downgrade() -> None:
    lock_together("call_sessions", "user_accounts", "token_usage")
    run_sql(
        """
        DO $$
        DECLARE
          holding text;
        BEGIN
          IF coalesce(current_setting('oblivion.drop_data', true), '') = 'yes' THEN
            RETURN;
          END IF;
          -- An opening says no more than the account itself.
          SELECT string_agg(name, ', ') INTO holding
          FROM (
            SELECT 'public.token_ledger' AS name WHERE EXISTS (SELECT FROM public.token_ledger WHERE kind <> 'opening')
            UNION ALL
            SELECT 'oblivion.call_meters' WHERE EXISTS (SELECT FROM oblivion.call_meters)
            UNION ALL
            SELECT 'oblivion.billing_incidents' WHERE EXISTS (SELECT FROM oblivion.billing_incidents)
          ) AS tables;
          IF holding IS NOT NULL THEN
            RAISE EXCEPTION '% holds rows, which this downgrade would drop', holding
              USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Save them first, then say alembic -x drop-data=yes downgrade';
          END IF;
        END
        $$
        """
    )
    run_sql("DROP FUNCTION public.settle_calls(integer)")
    run_sql("DROP FUNCTION public.reap_stale_calls(interval,integer)")
    run_sql("DROP FUNCTION public.refund_call(uuid,integer,text)")
    run_sql("DROP FUNCTION public.top_up(text,integer,text)")
    run_sql("DROP FUNCTION public.explain_call(uuid)")
    run_sql("DROP FUNCTION public.end_call(uuid)")
    run_sql("DROP FUNCTION public.set_call_turn(uuid,boolean)")
    run_sql("DROP FUNCTION public.tick_call(uuid)")
    run_sql("DROP FUNCTION public.start_call(text,text,text,boolean,text)")
    run_sql("DROP FUNCTION public.call_quote(text,text,boolean)")
    run_sql("DROP FUNCTION oblivion.settle_calls(integer)")
    run_sql("DROP FUNCTION oblivion.reap_stale_calls(interval,integer)")
    run_sql("DROP FUNCTION oblivion.refund_call(uuid,integer,text)")
    run_sql("DROP FUNCTION oblivion.top_up(text,integer,text)")
    run_sql("DROP FUNCTION oblivion.explain_call(uuid,text)")
    run_sql("DROP FUNCTION oblivion.start_call(text,text,text,boolean,text,text)")
    run_sql("DROP FUNCTION oblivion.call_quote(text,text,boolean,text)")
    run_sql("DROP FUNCTION oblivion.credit_account(text,integer,text,text,uuid,integer)")
    run_sql("DROP FUNCTION oblivion.advance_call(uuid,text,boolean,text)")
    run_sql("DROP FUNCTION oblivion.advance_unmetered_call(uuid,text,text)")
    run_sql("DROP FUNCTION oblivion.rate_card(text,boolean)")
    run_sql("DROP FUNCTION oblivion.turn_call(oblivion.call_meters,boolean,double precision)")
    run_sql(
        "DROP FUNCTION oblivion.bill_call(oblivion.call_meters,text,timestamp with time zone,integer,timestamp with time zone,text)"
    )
    run_sql("DROP FUNCTION oblivion.note_outcome(uuid,text,boolean,boolean,boolean)")
    run_sql("DROP FUNCTION oblivion.note_incident(uuid,text,text,text,text)")
    run_sql("DROP FUNCTION oblivion.check_key(text,text)")
    run_sql("DROP FUNCTION oblivion.may_act_for(text,text)")
    run_sql("DROP TABLE oblivion.billing_incidents")
    run_sql("DROP TABLE oblivion.call_segments")
    run_sql("DROP TABLE oblivion.call_meters")
    run_sql("DROP TRIGGER guard_metered_usage ON public.token_usage")
    run_sql("DROP FUNCTION oblivion.guard_metered_usage()")
    run_sql("DROP VIEW oblivion.balance_audit")
    run_sql("DROP FUNCTION oblivion.trim_ledger(timestamp with time zone)")
    run_sql("DROP TABLE public.token_ledger")
    run_sql("DROP TRIGGER settle_deleted_call ON public.call_sessions")
    run_sql("DROP FUNCTION oblivion.settle_deleted_call()")
    run_sql("DROP TRIGGER guard_metered_call ON public.call_sessions")
    run_sql("DROP FUNCTION oblivion.guard_metered_call()")
    run_sql("DROP TRIGGER close_ledger_of_all ON public.user_accounts")
    run_sql("DROP TRIGGER close_ledger ON public.user_accounts")
    run_sql("DROP TRIGGER write_ledger ON public.user_accounts")
    run_sql("DROP TRIGGER open_ledger ON public.user_accounts")
    run_sql("DROP FUNCTION oblivion.close_ledger()")
    run_sql("DROP FUNCTION oblivion.write_ledger()")
    run_sql("ALTER TABLE public.call_sessions RESET (fillfactor)")
    run_sql("ALTER TABLE public.token_usage RESET (fillfactor)")
    run_sql(
        """
        CREATE OR REPLACE FUNCTION public.update_updated_at_column()
        RETURNS trigger
        LANGUAGE plpgsql
        SET search_path TO ''
        AS $function$
        BEGIN
          NEW.updated_at = now();
          RETURN NEW;
        END
        $function$
        """
    )
