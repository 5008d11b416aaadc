"""The token engine.

Why: clients billed calls by reading a balance and writing it back; from here on functions in the database do, so that each
started minute is billed once, and a ledger tells of every change of a balance.
Locks: calls, accounts and usage against everybody, all of them at once or none, while a row of the ledger is written for
each account: 3.3 s for a million accounts.
"""

from pathlib import Path

from oblivion_schema.operations import run_file, run_sql
from oblivion_schema.operations.adoption import lock_together

revision = "004"
down_revision = "003"
branch_labels = None
depends_on = None

SQL = Path(__file__).with_suffix("")

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
    run_file(SQL / "public.update_updated_at_column.sql")
    run_file(SQL / "oblivion.write_ledger.sql")
    run_file(SQL / "oblivion.close_ledger.sql")
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
    run_file(SQL / "public.token_ledger.sql")
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
    run_file(SQL / "oblivion.trim_ledger.sql")
    run_file(SQL / "oblivion.balance_audit.sql")
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
    run_file(SQL / "oblivion.call_meters.sql")
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
    run_file(SQL / "oblivion.call_segments.sql")
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
    run_file(SQL / "oblivion.billing_incidents.sql")
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
    run_file(SQL / "oblivion.check_key.sql")
    run_file(SQL / "oblivion.note_incident.sql")
    run_file(SQL / "oblivion.note_outcome.sql")
    run_file(SQL / "oblivion.bill_call.sql")
    run_file(SQL / "oblivion.turn_call.sql")
    run_file(SQL / "oblivion.rate_card.sql")
    run_file(SQL / "oblivion.advance_unmetered_call.sql")
    run_file(SQL / "oblivion.advance_call.sql")
    run_file(SQL / "oblivion.credit_account.sql")
    run_file(SQL / "oblivion.call_quote.sql")
    run_file(SQL / "oblivion.start_call.sql")
    run_file(SQL / "oblivion.explain_call.sql")
    run_file(SQL / "oblivion.top_up.sql")
    run_file(SQL / "oblivion.refund_call.sql")
    run_file(SQL / "oblivion.reap_stale_calls.sql")
    run_file(SQL / "oblivion.settle_calls.sql")


def create_public_functions() -> None:
    """What clients call."""
    run_file(SQL / "public.call_quote.sql")
    run_file(SQL / "public.start_call.sql")
    run_file(SQL / "public.tick_call.sql")
    run_file(SQL / "public.set_call_turn.sql")
    run_file(SQL / "public.end_call.sql")
    run_file(SQL / "public.explain_call.sql")
    run_file(SQL / "public.top_up.sql")
    run_file(SQL / "public.refund_call.sql")
    run_file(SQL / "public.reap_stale_calls.sql")
    run_file(SQL / "public.settle_calls.sql")


def create_guards() -> None:
    """What keeps direct writes from what metered calls cost."""
    run_file(SQL / "oblivion.guard_metered_call.sql")
    run_sql(
        """
        CREATE TRIGGER guard_metered_call BEFORE UPDATE ON public.call_sessions
          FOR EACH ROW
          WHEN (CURRENT_USER::text = ANY ('{anon,authenticated,service_role}'::text[]))
          EXECUTE FUNCTION oblivion.guard_metered_call()
        """
    )
    run_file(SQL / "oblivion.settle_deleted_call.sql")
    run_sql(
        """
        CREATE TRIGGER settle_deleted_call BEFORE DELETE ON public.call_sessions
          FOR EACH ROW
          EXECUTE FUNCTION oblivion.settle_deleted_call()
        """
    )
    run_file(SQL / "oblivion.guard_metered_usage.sql")
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
    run_file(SQL / "down/public.update_updated_at_column.sql")
