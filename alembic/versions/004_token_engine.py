"""The token engine.

Why: clients billed calls by reading a balance and writing it back. From now on functions in the database bill them:
each started minute is billed once, and a ledger has a row for every change of a balance. Pages that cannot be changed
are trusted to bill by themselves, or metered: then the database bills what they do.
Locks: call_sessions, user_accounts and token_usage against reads and writes, all at once or none, while a ledger row is
written for each account: 3.3 s for a million accounts.
"""

from pathlib import Path

from oblivion_schema.operations import run_file, run_sql
from oblivion_schema.operations.adoption import lock_together, set_fillfactor

revision = "004"
down_revision = "003"
branch_labels = None
depends_on = None

SQL = Path(__file__).with_suffix("")


def upgrade() -> None:
    lock_together("call_sessions", "user_accounts", "token_usage")
    set_fillfactor("user_accounts", 50)
    run_file(SQL / "comments.sql")
    run_file(SQL / "oblivion.page_billing.sql")
    run_file(SQL / "public.page_billing.sql")
    # The ledger, what writes it, and its audit.
    run_file(SQL / "public.update_updated_at_column.sql")
    run_file(SQL / "oblivion.write_ledger.sql")
    run_file(SQL / "oblivion.close_ledger.sql")
    run_file(SQL / "public.token_ledger.sql")
    run_file(SQL / "oblivion.trim_ledger.sql")
    run_file(SQL / "oblivion.balance_audit.sql")
    # What the engine stores about calls.
    run_file(SQL / "oblivion.call_meters.sql")
    run_file(SQL / "oblivion.call_segments.sql")
    run_file(SQL / "oblivion.live_calls.sql")
    run_file(SQL / "oblivion.page_calls.sql")
    run_file(SQL / "oblivion.billing_incidents.sql")
    run_file(SQL / "oblivion.fold_charges.sql")
    # The engine.
    run_file(SQL / "oblivion.may_act_for.sql")
    run_file(SQL / "oblivion.check_key.sql")
    run_file(SQL / "oblivion.note_incident.sql")
    run_file(SQL / "oblivion.note_outcome.sql")
    run_file(SQL / "oblivion.final_meter.sql")
    run_file(SQL / "oblivion.page_lag.sql")
    run_file(SQL / "oblivion.bill_call.sql")
    run_file(SQL / "oblivion.turn_call.sql")
    run_file(SQL / "oblivion.rate_card.sql")
    run_file(SQL / "oblivion.advance_unmetered_call.sql")
    run_file(SQL / "oblivion.advance_call.sql")
    run_file(SQL / "oblivion.tick_call.sql")
    run_file(SQL / "oblivion.end_call.sql")
    run_file(SQL / "oblivion.credit_account.sql")
    run_file(SQL / "oblivion.call_quote.sql")
    run_file(SQL / "oblivion.start_call.sql")
    run_file(SQL / "oblivion.explain_call.sql")
    run_file(SQL / "oblivion.top_up.sql")
    run_file(SQL / "oblivion.refund_call.sql")
    run_file(SQL / "oblivion.sweep_calls.sql")
    # The API: clients and services call these.
    run_file(SQL / "public.call_quote.sql")
    run_file(SQL / "public.start_call.sql")
    run_file(SQL / "public.tick_call.sql")
    run_file(SQL / "public.set_call_turn.sql")
    run_file(SQL / "public.end_call.sql")
    run_file(SQL / "public.explain_call.sql")
    run_file(SQL / "public.top_up.sql")
    run_file(SQL / "public.refund_call.sql")
    run_file(SQL / "public.burn_calls.sql")
    run_file(SQL / "public.reap_stale_calls.sql")
    run_file(SQL / "public.settle_calls.sql")
    # Direct writes to metered calls.
    run_file(SQL / "oblivion.guard_metered_call.sql")
    run_file(SQL / "oblivion.correct_meter.sql")
    run_file(SQL / "oblivion.settle_deleted_call.sql")
    # Pages that bill by themselves.
    run_file(SQL / "oblivion.meter_call.sql")
    run_file(SQL / "oblivion.unmeter_call.sql")
    run_file(SQL / "oblivion.meter_page_call.sql")
    run_file(SQL / "oblivion.end_page_call.sql")
    run_file(SQL / "oblivion.update_account.sql")
    run_file(SQL / "oblivion.limit_opening.sql")
    run_file(SQL / "oblivion.guard_usage.sql")
    run_file(SQL / "policies.sql")
    run_file(SQL / "triggers.sql")
    run_file(SQL / "grants.sql")
    run_sql(
        """
        INSERT INTO public.token_ledger (user_id, kind, tokens, balance)
        SELECT user_id, 'opening', tokens_remaining, tokens_remaining
        FROM public.user_accounts
        """
    )


def downgrade() -> None:
    lock_together("call_sessions", "user_accounts", "token_usage")
    run_file(SQL / "down/refuse_to_drop_rows.sql")
    run_file(SQL / "down/pages.sql")
    run_file(SQL / "down/functions.sql")
    run_sql("DROP FUNCTION oblivion.fold_charges(timestamp with time zone)")
    run_sql("DROP TABLE oblivion.billing_incidents")
    run_sql("DROP VIEW oblivion.live_calls")
    run_sql("DROP TRIGGER correct_meter ON public.call_sessions")
    run_sql("DROP FUNCTION oblivion.correct_meter()")
    run_sql("DROP TRIGGER guard_metered_call ON public.call_sessions")
    run_sql("DROP FUNCTION oblivion.guard_metered_call()")
    run_sql("DROP TABLE oblivion.call_segments")
    run_sql("DROP TABLE oblivion.call_meters")
    run_sql("DROP VIEW oblivion.balance_audit")
    run_sql("DROP FUNCTION oblivion.trim_ledger(timestamp with time zone)")
    run_sql("DROP TABLE public.token_ledger")
    run_sql("DROP TRIGGER settle_deleted_call ON public.call_sessions")
    run_sql("DROP FUNCTION oblivion.settle_deleted_call()")
    run_sql("DROP TRIGGER close_ledger_of_all ON public.user_accounts")
    run_sql("DROP TRIGGER close_ledger ON public.user_accounts")
    run_sql("DROP TRIGGER write_ledger ON public.user_accounts")
    run_sql("DROP TRIGGER open_ledger ON public.user_accounts")
    run_sql("DROP FUNCTION oblivion.close_ledger()")
    run_sql("DROP FUNCTION oblivion.write_ledger()")
    run_file(SQL / "down/tables.sql")
    run_file(SQL / "down/public.update_updated_at_column.sql")
