"""Reports that stay fast.

Why: reports read all rows of usage and calls, so they became slower with each row. From now on they read roll-ups,
which triggers update in the transaction of each change. token_usage gets fewer and smaller indexes, and a heartbeat
writes no index any more.
Locks: call_sessions, token_usage, user_presence and the reports against reads and writes, all at once or none, while an
index of token_usage is built: 2.4 s for a million rows. `oblivion-schema prepare` builds it before, and so does
`upgrade head` if the table is big. oblivion.backfill() fills the roll-ups of tables of more than 1 MB, and nobody waits
for that.
"""

from pathlib import Path

from oblivion_schema.operations import keep_grants, restore_grants, run_file, run_sql
from oblivion_schema.operations.adoption import (
    create_index,
    drop_index,
    drop_index_unless,
    lock_together,
    set_fillfactor,
)

revision = "005"
down_revision = "004"
branch_labels = None
depends_on = None

SQL = Path(__file__).with_suffix("")

LOCKED = (
    "active_calls",
    "daily_billing_summary",
    "daily_token_usage",
    "user_token_summary",
    "call_sessions",
    "token_usage",
    "user_presence",
)


def upgrade() -> None:
    lock_together(*LOCKED)
    # Fewer indexes, and smaller ones.
    drop_index("idx_token_usage_billing")
    drop_index("idx_token_usage_session_id")
    drop_index_unless("token_usage", "idx_token_usage_session")
    create_index("token_usage", "idx_token_usage_session", "session_id", method="hash")
    # The index that `prepare` built is ours; earlier revisions did not know it, and logged it as somebody else's.
    run_sql(
        """
        DELETE FROM oblivion.adoption_log
        WHERE kind = 'index' AND name = 'public.idx_token_usage_session on public.token_usage'
        """
    )
    # The roll-ups, and the deltas that are not yet folded into them.
    run_file(SQL / "oblivion.daily_usage.sql")
    run_file(SQL / "oblivion.user_usage.sql")
    run_file(SQL / "oblivion.usage_deltas.sql")
    run_file(SQL / "oblivion.daily_calls.sql")
    run_file(SQL / "oblivion.call_deltas.sql")
    # The functions that maintain them.
    run_file(SQL / "oblivion.call_amounts.sql")
    run_file(SQL / "oblivion.fold_usage.sql")
    run_file(SQL / "oblivion.fold_calls.sql")
    run_file(SQL / "oblivion.note_usage.sql")
    run_file(SQL / "oblivion.note_calls.sql")
    run_file(SQL / "oblivion.clear_rollups.sql")
    run_file(SQL / "oblivion.rebuild_rollups.sql")
    # What computes sums that are not there yet, and what fills them in.
    run_file(SQL / "oblivion.count_usage.sql")
    run_file(SQL / "oblivion.backfill.sql")
    # The reports, and the views of what roll-ups lack.
    run_file(SQL / "public.active_calls.sql")
    run_file(SQL / "oblivion.daily_usage_drift.sql")
    run_file(SQL / "oblivion.user_usage_drift.sql")
    run_file(SQL / "oblivion.missing_usage.sql")
    run_file(SQL / "public.daily_token_usage.sql")
    run_file(SQL / "public.user_token_summary.sql")
    run_file(SQL / "oblivion.daily_calls_drift.sql")
    run_file(SQL / "oblivion.missing_calls.sql")
    run_file(SQL / "public.daily_billing_summary.sql")
    # Heartbeats that write no index, and host_presence() that knows when a heartbeat is too old.
    run_sql("DROP FUNCTION public.host_presence(text)")
    run_sql("DROP FUNCTION oblivion.host_presence(text)")
    set_fillfactor("user_presence", 60)
    run_sql(
        """
        COMMENT ON COLUMN public.user_presence.updated_at IS
          'When the host was last heard of, by the server''s clock; a trigger keeps it.'
        """
    )
    run_file(SQL / "oblivion.host_presence.sql")
    run_file(SQL / "public.host_presence.sql")
    run_file(SQL / "triggers.sql")
    run_file(SQL / "grants.sql")
    run_file(SQL / "fill_rollups.sql")


def downgrade() -> None:
    # No check for rows: roll-ups can be computed again from the rows of calls and usage.
    lock_together(*LOCKED)
    keep_grants("public.daily_billing_summary", "public.daily_token_usage", "public.user_token_summary")
    run_sql("DROP VIEW public.daily_billing_summary")
    run_sql("DROP FUNCTION oblivion.missing_calls()")
    run_sql("DROP VIEW oblivion.daily_calls_drift")
    run_sql("DROP VIEW public.user_token_summary")
    run_sql("DROP VIEW public.daily_token_usage")
    run_sql("DROP FUNCTION oblivion.missing_usage()")
    run_sql("DROP VIEW oblivion.user_usage_drift")
    run_sql("DROP VIEW oblivion.daily_usage_drift")
    run_sql("DROP TABLE oblivion.call_deltas")
    run_sql("DROP TRIGGER clear_rollups ON public.token_usage")
    run_sql("DROP TRIGGER note_delete ON public.token_usage")
    run_sql("DROP TRIGGER note_update ON public.token_usage")
    run_sql("DROP TRIGGER note_insert ON public.token_usage")
    run_sql("DROP INDEX public.idx_token_usage_session")
    run_sql("DROP TABLE oblivion.daily_calls")
    run_sql("DROP TABLE oblivion.usage_deltas")
    run_sql("DROP TABLE oblivion.user_usage")
    run_sql("DROP TABLE oblivion.daily_usage")
    run_sql("DROP FUNCTION public.host_presence(text,interval)")
    run_sql("DROP FUNCTION oblivion.host_presence(text,interval)")
    run_sql("DROP TRIGGER clear_rollups ON public.call_sessions")
    run_sql("DROP TRIGGER note_delete ON public.call_sessions")
    run_sql("DROP TRIGGER note_update ON public.call_sessions")
    run_sql("DROP TRIGGER note_insert ON public.call_sessions")
    run_sql("DROP FUNCTION oblivion.backfill()")
    run_sql("DELETE FROM oblivion.backfills WHERE name IN ('usage', 'calls')")
    run_sql("DROP FUNCTION oblivion.rebuild_rollups()")
    run_sql("DROP FUNCTION oblivion.clear_rollups()")
    run_sql("DROP FUNCTION oblivion.note_calls()")
    run_sql("DROP FUNCTION oblivion.note_usage()")
    run_sql("DROP FUNCTION oblivion.fold_calls(integer)")
    run_sql("DROP FUNCTION oblivion.fold_usage(integer)")
    run_sql("DROP FUNCTION oblivion.count_usage(text)")
    run_sql("DROP FUNCTION oblivion.call_amounts(timestamptz,timestamptz,text,boolean,numeric)")
    run_sql("ALTER TABLE public.user_presence RESET (fillfactor)")
    run_sql(
        """
        CREATE OR REPLACE TRIGGER update_user_presence_updated_at_trigger BEFORE UPDATE ON public.user_presence
          FOR EACH ROW EXECUTE FUNCTION public.update_user_presence_updated_at()
        """
    )
    run_sql(
        """
        COMMENT ON COLUMN public.user_presence.updated_at IS
          'When the host was last heard of; a trigger keeps it on updates.'
        """
    )
    run_sql("CREATE INDEX idx_token_usage_session_id ON public.token_usage (session_id)")
    run_sql('CREATE INDEX idx_token_usage_billing ON public.token_usage (mode, used_turn, "timestamp")')
    run_file(SQL / "down/oblivion.host_presence.sql")
    run_file(SQL / "down/public.host_presence.sql")
    run_file(SQL / "down/public.active_calls.sql")
    run_file(SQL / "down/public.daily_billing_summary.sql")
    run_file(SQL / "down/public.user_token_summary.sql")
    run_file(SQL / "down/public.daily_token_usage.sql")
    restore_grants()
