"""The token engine.

Why: clients billed calls by reading a balance and writing it back. From now on functions in the database bill them:
each started minute is billed once, and a ledger has a row for every change of a balance. Pages that cannot be changed
are trusted to bill by themselves, or metered: then the database bills what they do.
Locks: call_sessions, user_accounts and token_usage against reads and writes, all at once or none, for a moment. If
user_accounts has more than 1 MB, oblivion.backfill() of revision 005 writes the first row of each account, and nobody
waits for that.
"""

from pathlib import Path

from oblivion_schema.operations import run_file, run_sql
from oblivion_schema.operations.adoption import lock_together, set_fillfactor

revision = "004"
down_revision = "003"
branch_labels = None
depends_on = None

SQL = Path(__file__).with_suffix("")

ENGINE = (
    "oblivion.is_page",
    "oblivion.is_intruder",
    "oblivion.refuse_pages",
    "oblivion.bar_truncate",
    "oblivion.may_act_for",
    "oblivion.check_key",
    "oblivion.note_incident",
    "oblivion.note_outcome",
    "oblivion.final_meter",
    "oblivion.page_lag",
    "oblivion.is_fresh",
    "oblivion.last_moment",
    "oblivion.bill_call",
    "oblivion.turn_call",
    "oblivion.rate_card",
    "oblivion.advance_unmetered_call",
    "oblivion.advance_call",
    "oblivion.tick_call",
    "oblivion.end_call",
    "oblivion.credit_account",
    "oblivion.call_quote",
    "oblivion.start_call",
    "oblivion.explain_call",
    "oblivion.top_up",
    "oblivion.refund_call",
    "oblivion.sweep_calls",
)
# Clients and services call these.
API = (
    "public.call_quote",
    "public.start_call",
    "public.tick_call",
    "public.set_call_turn",
    "public.end_call",
    "public.explain_call",
    "public.top_up",
    "public.refund_call",
    "public.burn_calls",
    "public.reap_stale_calls",
    "public.settle_calls",
)
# Pages that bill by themselves.
PAGES = (
    "oblivion.meter_call",
    "oblivion.unmeter_call",
    "oblivion.meter_page_call",
    "oblivion.bill_page_call",
    "oblivion.update_account",
    "oblivion.guard_account",
    "oblivion.call_id",
    "oblivion.guard_usage",
)
# How accounts come to be.
SIGN_UP = (
    "oblivion.sign_up",
    "oblivion.callers_without_account",
    "oblivion.allow_sign_up",
    "oblivion.make_account",
    "oblivion.open_account",
    "oblivion.open_account_of_user",
    "public.open_account",
)


def upgrade() -> None:
    lock_together("call_sessions", "user_accounts", "token_usage")
    set_fillfactor("user_accounts", 50)
    run_file(SQL / "comments.sql")
    run_file(SQL / "oblivion.page_billing.sql")
    run_file(SQL / "public.page_billing.sql")
    run_file(SQL / "oblivion.backfills.sql")
    # The ledger, what writes it, and its audit.
    run_file(SQL / "public.update_updated_at_column.sql")
    run_file(SQL / "oblivion.write_ledger.sql")
    run_file(SQL / "oblivion.close_ledger.sql")
    run_file(SQL / "public.token_ledger.sql")
    run_file(SQL / "oblivion.missing_openings.sql")
    run_file(SQL / "oblivion.balance_audit.sql")
    run_file(SQL / "oblivion.wrong_ledgers.sql")
    run_file(SQL / "oblivion.trim_ledger.sql")
    run_file(SQL / "oblivion.rebuild_ledger.sql")
    # What the engine stores about calls.
    run_file(SQL / "oblivion.call_meters.sql")
    run_file(SQL / "oblivion.call_segments.sql")
    run_file(SQL / "oblivion.live_calls.sql")
    run_file(SQL / "oblivion.page_calls.sql")
    run_file(SQL / "oblivion.billing_incidents.sql")
    run_file(SQL / "oblivion.fold_charges.sql")
    run_file(SQL / "oblivion.restart_identities.sql")
    for name in (*ENGINE, *API):
        run_file(SQL / f"{name}.sql")
    # Direct writes to metered calls.
    run_file(SQL / "oblivion.guard_metered_call.sql")
    run_file(SQL / "oblivion.correct_meter.sql")
    run_file(SQL / "oblivion.settle_deleted_call.sql")
    for name in (*PAGES, *SIGN_UP):
        run_file(SQL / f"{name}.sql")
    run_file(SQL / "oblivion.keeps_account.sql")
    run_file(SQL / "policies.sql")
    run_file(SQL / "triggers.sql")
    run_file(SQL / "grants.sql")
    run_file(SQL / "open_ledger.sql")


def downgrade() -> None:
    lock_together("call_sessions", "user_accounts", "token_usage")
    run_file(SQL / "down/refuse_to_drop_rows.sql")
    run_file(SQL / "down/sign_up.sql")
    run_file(SQL / "down/pages.sql")
    run_file(SQL / "down/functions.sql")
    run_sql("DROP FUNCTION oblivion.restart_identities()")
    run_sql("DROP FUNCTION oblivion.fold_charges(timestamp with time zone)")
    run_sql("DROP TABLE oblivion.billing_incidents")
    run_sql("DROP VIEW oblivion.live_calls")
    run_sql("DROP TRIGGER correct_meter ON public.call_sessions")
    run_sql("DROP FUNCTION oblivion.correct_meter()")
    run_sql("DROP TRIGGER guard_metered_call ON public.call_sessions")
    run_sql("DROP FUNCTION oblivion.guard_metered_call()")
    run_sql("DROP TABLE oblivion.call_segments")
    run_sql("DROP TABLE oblivion.call_meters")
    run_sql("DROP FUNCTION oblivion.rebuild_ledger()")
    run_sql("DROP FUNCTION oblivion.trim_ledger(timestamp with time zone)")
    run_sql("DROP FUNCTION oblivion.wrong_ledgers()")
    run_sql("DROP VIEW oblivion.balance_audit")
    run_sql("DROP VIEW oblivion.missing_openings")
    run_sql("DROP TABLE public.token_ledger")
    run_sql("DROP TRIGGER settle_deleted_call ON public.call_sessions")
    run_sql("DROP FUNCTION oblivion.settle_deleted_call()")
    run_sql("DROP TRIGGER close_ledger_of_all ON public.user_accounts")
    run_sql("DROP TRIGGER close_ledger ON public.user_accounts")
    run_sql("DROP TRIGGER write_ledger ON public.user_accounts")
    run_sql("DROP TRIGGER open_ledger ON public.user_accounts")
    run_sql("DROP FUNCTION oblivion.close_ledger()")
    run_sql("DROP FUNCTION oblivion.write_ledger()")
    run_sql("DROP TABLE oblivion.backfills")
    run_file(SQL / "down/tables.sql")
    run_file(SQL / "down/public.update_updated_at_column.sql")
