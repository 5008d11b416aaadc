"""Reports that stay fast.

Why: reports read each row of usage and of calls, and took longer with each of them; from here on they read roll-ups, which
triggers keep in the transaction of each change. Fewer and smaller indexes on usage, and heartbeats that change none.
Locks: calls, usage and presence against everybody while the roll-ups are filled from the rows there are, and an index of
usage is built: ?
"""

from pathlib import Path

from oblivion_schema.operations import keep_grants, restore_grants, run_file, run_sql
from oblivion_schema.operations.adoption import lock_together

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
TABLES = ("sees_all", "daily_usage", "user_usage", "usage_deltas", "daily_calls", "call_deltas")


def upgrade() -> None:
    lock_together(*LOCKED)
    change_indexes()
    create_tables()
    create_functions()
    guard_tables()
    create_triggers()
    create_views()
    change_presence()
    fill()
    for thing, comment in (
        (
            "FUNCTION oblivion.call_amounts(timestamp with time zone,timestamp with time zone,text,boolean,numeric)",
            "What one call adds to the sums of its day.",
        ),
        ("FUNCTION oblivion.fold_usage(integer)", "Folds deltas into the roll-ups of usage."),
        ("FUNCTION oblivion.fold_calls(integer)", "Folds deltas into the roll-up of calls."),
        ("FUNCTION oblivion.note_usage()", "Trigger: appends what a statement changed in usage."),
        ("FUNCTION oblivion.note_calls()", "Trigger: appends what a statement changed in calls."),
        ("FUNCTION oblivion.clear_rollups()", "Trigger: empties what stood for the rows of a table."),
        (
            "FUNCTION oblivion.rebuild_rollups()",
            "Mends the roll-ups, while writers go on; returns how many sums were off.",
        ),
        (
            "COLUMN public.user_presence.updated_at",
            "When the host was last heard of, by the server''s clock; a trigger keeps it.",
        ),
        ("FUNCTION oblivion.host_presence(text,interval)", "What anybody may know of a host, past row level security."),
        (
            "FUNCTION public.host_presence(text,interval)",
            "Whether a host takes calls, where, and when the host was last heard of; away when that is longer ago than stale_after by the server''s clock, 2 minutes unless it is given; no row for one that is not known.",
        ),
        (
            "TABLE oblivion.sees_all",
            "One row, which those see whom row level security shows all rows of calls and usage.",
        ),
        ("COLUMN oblivion.sees_all.yes", "True."),
        ("TABLE oblivion.daily_usage", "Usage by UTC day, mode and TURN, but for what usage_deltas holds."),
        ("COLUMN oblivion.daily_usage.usage_date", "UTC day on which the usage was logged."),
        ("COLUMN oblivion.daily_usage.mode", "voice or video."),
        ("COLUMN oblivion.daily_usage.used_turn", "Whether the TURN rate applied."),
        ("COLUMN oblivion.daily_usage.sessions", "Rows of usage."),
        ("COLUMN oblivion.daily_usage.tokens", "Sum of their tokens."),
        ("COLUMN oblivion.daily_usage.seconds", "Sum of their lengths, unknown ones as zero."),
        ("TABLE oblivion.user_usage", "Usage by account, but for what usage_deltas holds."),
        ("COLUMN oblivion.user_usage.user_id", "The account."),
        ("COLUMN oblivion.user_usage.sessions", "Its rows of usage."),
        ("COLUMN oblivion.user_usage.tokens", "Sum of their tokens."),
        ("COLUMN oblivion.user_usage.last_usage", "The newest of them, unless has_lost_rows."),
        (
            "COLUMN oblivion.user_usage.has_lost_rows",
            "Rows were deleted, or moved back in time: last_usage may be of one of those.",
        ),
        ("TABLE oblivion.usage_deltas", "What changed in usage and is not yet in daily_usage and user_usage."),
        ("COLUMN oblivion.usage_deltas.user_id", "The account; NULL where it is a day''s alone."),
        ("COLUMN oblivion.usage_deltas.usage_date", "UTC day; NULL where it is an account''s alone."),
        ("COLUMN oblivion.usage_deltas.mode", "voice or video; NULL as the day."),
        ("COLUMN oblivion.usage_deltas.used_turn", "Whether the TURN rate applied; NULL as the day."),
        ("COLUMN oblivion.usage_deltas.sessions", "Rows more, or, below zero, fewer."),
        ("COLUMN oblivion.usage_deltas.tokens", "Tokens more."),
        ("COLUMN oblivion.usage_deltas.seconds", "Seconds more."),
        ("COLUMN oblivion.usage_deltas.last_usage", "The newest of the rows that came."),
        ("COLUMN oblivion.usage_deltas.has_lost_rows", "Rows that went may have been newer than those that came."),
        ("TABLE oblivion.daily_calls", "Calls by the UTC day on which they began, but for what call_deltas holds."),
        ("COLUMN oblivion.daily_calls.call_date", "UTC day on which the calls began."),
        ("COLUMN oblivion.daily_calls.calls", "Calls."),
        ("COLUMN oblivion.daily_calls.turn_calls", "Those that a TURN relay carried."),
        ("COLUMN oblivion.daily_calls.video_calls", "Those with video."),
        ("COLUMN oblivion.daily_calls.voice_calls", "Those with voice only."),
        ("COLUMN oblivion.daily_calls.credits", "Sum of their credit_cost, but for NaN."),
        ("COLUMN oblivion.daily_calls.credits_unknown", "Those whose credit_cost is NaN."),
        ("COLUMN oblivion.daily_calls.ended_calls", "Those that ended, and have a length."),
        ("COLUMN oblivion.daily_calls.seconds", "Sum of these lengths."),
        (
            "COLUMN public.active_calls.duration",
            "How long it has been going on; NULL where it began at no finite time.",
        ),
        ("TABLE oblivion.call_deltas", "What changed in calls and is not yet in daily_calls."),
        ("COLUMN oblivion.call_deltas.call_date", "UTC day on which the calls began."),
        ("COLUMN oblivion.call_deltas.calls", "Calls."),
        ("COLUMN oblivion.call_deltas.turn_calls", "Those that a TURN relay carried."),
        ("COLUMN oblivion.call_deltas.video_calls", "Those with video."),
        ("COLUMN oblivion.call_deltas.voice_calls", "Those with voice only."),
        ("COLUMN oblivion.call_deltas.credits", "Sum of their credit_cost, but for NaN."),
        ("COLUMN oblivion.call_deltas.credits_unknown", "Those whose credit_cost is NaN."),
        ("COLUMN oblivion.call_deltas.ended_calls", "Those that ended, and have a length."),
        ("COLUMN oblivion.call_deltas.seconds", "Sum of these lengths."),
        (
            "VIEW oblivion.daily_usage_drift",
            "What the roll-up of days lacks against the rows of usage; no row where it is right.",
        ),
        ("COLUMN oblivion.daily_usage_drift.usage_date", "The day."),
        ("COLUMN oblivion.daily_usage_drift.mode", "voice or video."),
        ("COLUMN oblivion.daily_usage_drift.used_turn", "Whether the TURN rate applied."),
        ("COLUMN oblivion.daily_usage_drift.sessions", "Rows that are missing, or, below zero, too many."),
        ("COLUMN oblivion.daily_usage_drift.tokens", "Tokens that are missing."),
        ("COLUMN oblivion.daily_usage_drift.seconds", "Seconds that are missing."),
        (
            "VIEW oblivion.user_usage_drift",
            "What the roll-up of accounts lacks against the rows of usage; no row where it is right.",
        ),
        ("COLUMN oblivion.user_usage_drift.user_id", "The account."),
        ("COLUMN oblivion.user_usage_drift.sessions", "Rows that are missing, or, below zero, too many."),
        ("COLUMN oblivion.user_usage_drift.tokens", "Tokens that are missing."),
        ("COLUMN oblivion.user_usage_drift.last_usage", "When it last used any."),
        ("COLUMN oblivion.user_usage_drift.has_lost_rows", "Whether the roll-up takes a later time for that."),
        (
            "VIEW oblivion.daily_calls_drift",
            "What the roll-up of calls lacks against the rows of calls; no row where it is right.",
        ),
        ("COLUMN oblivion.daily_calls_drift.call_date", "UTC day on which the calls began."),
        ("COLUMN oblivion.daily_calls_drift.calls", "Calls."),
        ("COLUMN oblivion.daily_calls_drift.turn_calls", "Those that a TURN relay carried."),
        ("COLUMN oblivion.daily_calls_drift.video_calls", "Those with video."),
        ("COLUMN oblivion.daily_calls_drift.voice_calls", "Those with voice only."),
        ("COLUMN oblivion.daily_calls_drift.credits", "Sum of their credit_cost, but for NaN."),
        ("COLUMN oblivion.daily_calls_drift.credits_unknown", "Those whose credit_cost is NaN."),
        ("COLUMN oblivion.daily_calls_drift.ended_calls", "Those that ended, and have a length."),
        ("COLUMN oblivion.daily_calls_drift.seconds", "Sum of these lengths."),
    ):
        run_sql(f"COMMENT ON {thing} IS '{comment}'")


def change_indexes() -> None:
    """Fewer, and smaller."""
    run_sql("DROP INDEX public.idx_token_usage_billing")
    run_sql("DROP INDEX public.idx_token_usage_session_id")
    run_sql("CREATE INDEX IF NOT EXISTS idx_token_usage_session ON public.token_usage USING hash (session_id)")
    # What `prepare` made before is ours, which the revisions before this one could not know.
    run_sql(
        """
        DELETE FROM oblivion.adoption_log
        WHERE kind = 'index' AND name = 'public.idx_token_usage_session on public.token_usage'
        """
    )


def create_tables() -> None:
    """The roll-ups, and what is not yet in them."""
    run_sql(
        """
        CREATE TABLE oblivion.sees_all (
          yes boolean NOT NULL,
          CONSTRAINT sees_all_pkey PRIMARY KEY (yes)
        )
        """
    )
    run_sql("ALTER TABLE oblivion.sees_all ADD CONSTRAINT sees_all_yes_check CHECK (yes)")
    run_sql(
        """
        INSERT INTO oblivion.sees_all (yes)
          VALUES (true)
        """
    )
    run_file(SQL / "oblivion.daily_usage.sql")
    run_file(SQL / "oblivion.user_usage.sql")
    run_file(SQL / "oblivion.usage_deltas.sql")
    run_file(SQL / "oblivion.daily_calls.sql")
    run_file(SQL / "oblivion.call_deltas.sql")


def create_functions() -> None:
    """What keeps them."""
    run_file(SQL / "oblivion.call_amounts.sql")
    run_file(SQL / "oblivion.fold_usage.sql")
    run_file(SQL / "oblivion.fold_calls.sql")
    run_file(SQL / "oblivion.note_usage.sql")
    run_file(SQL / "oblivion.note_calls.sql")
    run_file(SQL / "oblivion.clear_rollups.sql")
    run_file(SQL / "oblivion.rebuild_rollups.sql")
    grant_execution_to_nobody(
        "oblivion.fold_usage(integer)",
        "oblivion.fold_calls(integer)",
        "oblivion.note_usage()",
        "oblivion.note_calls()",
        "oblivion.clear_rollups()",
        "oblivion.rebuild_rollups()",
    )
    run_sql(
        "GRANT EXECUTE ON FUNCTION oblivion.call_amounts(timestamp with time zone,timestamp with time zone,text,boolean,numeric) TO PUBLIC"
    )


def guard_tables() -> None:
    """Sums are for who sees all rows; the schema is private."""
    for table in TABLES:
        run_sql(f"ALTER TABLE oblivion.{table} ENABLE ROW LEVEL SECURITY")
        run_sql(
            f"CREATE POLICY {table}_select ON oblivion.{table} FOR SELECT TO PUBLIC"
            " USING (oblivion.open_access() OR oblivion.is_service_role())"
        )
        run_sql(f"CREATE POLICY {table}_insert ON oblivion.{table} FOR INSERT TO PUBLIC WITH CHECK (false)")
        run_sql(
            f"CREATE POLICY {table}_update ON oblivion.{table} FOR UPDATE TO PUBLIC USING (false) WITH CHECK (false)"
        )
        run_sql(f"CREATE POLICY {table}_delete ON oblivion.{table} FOR DELETE TO PUBLIC USING (false)")
        run_sql(KEEP_TO_OWNER.replace("<object>", f"TABLE oblivion.{table}"))
        run_sql(f"GRANT SELECT ON TABLE oblivion.{table} TO PUBLIC")


def create_triggers() -> None:
    """What calls that."""
    run_sql(
        """
        CREATE TRIGGER note_insert AFTER INSERT ON public.call_sessions
          REFERENCING NEW TABLE AS added
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_calls()
        """
    )
    run_sql(
        """
        CREATE TRIGGER note_update AFTER UPDATE ON public.call_sessions
          REFERENCING OLD TABLE AS removed NEW TABLE AS added
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_calls()
        """
    )
    run_sql(
        """
        CREATE TRIGGER note_delete AFTER DELETE ON public.call_sessions
          REFERENCING OLD TABLE AS removed
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_calls()
        """
    )
    run_sql(
        """
        CREATE TRIGGER clear_rollups AFTER TRUNCATE ON public.call_sessions
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.clear_rollups()
        """
    )
    run_sql(
        """
        CREATE TRIGGER note_insert AFTER INSERT ON public.token_usage
          REFERENCING NEW TABLE AS added
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_usage()
        """
    )
    run_sql(
        """
        CREATE TRIGGER note_update AFTER UPDATE ON public.token_usage
          REFERENCING OLD TABLE AS removed NEW TABLE AS added
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_usage()
        """
    )
    run_sql(
        """
        CREATE TRIGGER note_delete AFTER DELETE ON public.token_usage
          REFERENCING OLD TABLE AS removed
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.note_usage()
        """
    )
    run_sql(
        """
        CREATE TRIGGER clear_rollups AFTER TRUNCATE ON public.token_usage
          FOR EACH STATEMENT
          EXECUTE FUNCTION oblivion.clear_rollups()
        """
    )


def create_views() -> None:
    """The reports, and what roll-ups lack."""
    run_file(SQL / "public.active_calls.sql")
    run_file(SQL / "oblivion.daily_usage_drift.sql")
    run_file(SQL / "oblivion.user_usage_drift.sql")
    run_file(SQL / "public.daily_token_usage.sql")
    run_file(SQL / "public.user_token_summary.sql")
    run_file(SQL / "oblivion.daily_calls_drift.sql")
    run_file(SQL / "public.daily_billing_summary.sql")
    for view in ("daily_usage_drift", "user_usage_drift", "daily_calls_drift"):
        run_sql(KEEP_TO_OWNER.replace("<object>", f"TABLE oblivion.{view}"))


def change_presence() -> None:
    """Heartbeats that change no index, and by whose clock a host is away."""
    run_sql("DROP FUNCTION public.host_presence(text)")
    run_sql("DROP FUNCTION oblivion.host_presence(text)")
    run_sql("ALTER TABLE public.user_presence SET (fillfactor = 60)")
    run_sql(
        """
        CREATE OR REPLACE TRIGGER update_user_presence_updated_at_trigger BEFORE INSERT OR UPDATE ON public.user_presence
          FOR EACH ROW
          EXECUTE FUNCTION public.update_user_presence_updated_at()
        """
    )
    run_file(SQL / "oblivion.host_presence.sql")
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON FUNCTION oblivion.host_presence(text,interval) FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION oblivion.host_presence(text,interval) FROM %I CASCADE', api_role);
            EXECUTE format('GRANT EXECUTE ON FUNCTION oblivion.host_presence(text,interval) TO %I', api_role);
          END LOOP;
        END
        $$
        """
    )
    run_file(SQL / "public.host_presence.sql")
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON FUNCTION public.host_presence(text,interval) FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION public.host_presence(text,interval) FROM %I CASCADE', api_role);
            EXECUTE format('GRANT EXECUTE ON FUNCTION public.host_presence(text,interval) TO %I', api_role);
          END LOOP;
        END
        $$
        """
    )


def fill() -> None:
    """Each sum from the rows that there are."""
    run_sql(
        """
        INSERT INTO oblivion.daily_usage (usage_date, mode, used_turn, sessions, tokens, seconds)
        SELECT
          (u."timestamp" AT TIME ZONE 'UTC')::date, u.mode, u.used_turn,
          count(*), sum(u.tokens_used), coalesce(sum(u.duration_seconds), 0)
        FROM public.token_usage AS u
        GROUP BY 1, u.mode, u.used_turn
        """
    )
    run_sql(
        """
        INSERT INTO oblivion.user_usage (user_id, sessions, tokens, last_usage, has_lost_rows)
        SELECT u.user_id, count(*), sum(u.tokens_used), max(u."timestamp"), false
        FROM public.token_usage AS u
        GROUP BY u.user_id
        """
    )
    run_sql(
        """
        INSERT INTO oblivion.daily_calls (
          call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
        )
        SELECT
          a.call_date, sum(a.calls), sum(a.turn_calls), sum(a.video_calls), sum(a.voice_calls),
          sum(a.credits), sum(a.credits_unknown), sum(a.ended_calls), sum(a.seconds)
        FROM public.call_sessions AS c
        CROSS JOIN LATERAL oblivion.call_amounts(c.start_time, c.end_time, c.mode, c.used_turn, c.credit_cost) AS a
        GROUP BY a.call_date
        """
    )


def grant_execution_to_nobody(*functions: str) -> None:
    """Let only the owner execute the functions."""
    run_sql(KEEP_TO_OWNER.replace("<object>", f"FUNCTION {', '.join(functions)}"))


KEEP_TO_OWNER = """
DO $$
DECLARE
  api_role name;
BEGIN
  REVOKE ALL ON <object> FROM PUBLIC CASCADE;
  FOR api_role IN
    SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
  LOOP
    EXECUTE format('REVOKE ALL ON <object> FROM %I CASCADE', api_role);
  END LOOP;
END
$$
"""


def downgrade() -> None:
    lock_together(*LOCKED)
    keep_grants("public.daily_billing_summary", "public.daily_token_usage", "public.user_token_summary")
    drop_new()
    put_back_old()
    restore_grants()


def drop_new() -> None:
    """Roll-ups hold nothing that their rows do not say."""
    run_sql("DROP VIEW public.daily_billing_summary")
    run_sql("DROP VIEW oblivion.daily_calls_drift")
    run_sql("DROP VIEW public.user_token_summary")
    run_sql("DROP VIEW public.daily_token_usage")
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
    run_sql("DROP TABLE oblivion.sees_all")
    run_sql("DROP FUNCTION public.host_presence(text,interval)")
    run_sql("DROP FUNCTION oblivion.host_presence(text,interval)")
    run_sql("DROP TRIGGER clear_rollups ON public.call_sessions")
    run_sql("DROP TRIGGER note_delete ON public.call_sessions")
    run_sql("DROP TRIGGER note_update ON public.call_sessions")
    run_sql("DROP TRIGGER note_insert ON public.call_sessions")
    run_sql("DROP FUNCTION oblivion.rebuild_rollups()")
    run_sql("DROP FUNCTION oblivion.clear_rollups()")
    run_sql("DROP FUNCTION oblivion.note_calls()")
    run_sql("DROP FUNCTION oblivion.note_usage()")
    run_sql("DROP FUNCTION oblivion.fold_calls(integer)")
    run_sql("DROP FUNCTION oblivion.fold_usage(integer)")
    run_sql(
        "DROP FUNCTION oblivion.call_amounts(timestamp with time zone,timestamp with time zone,text,boolean,numeric)"
    )


def put_back_old() -> None:
    """Reports and indexes as they were."""
    run_sql("ALTER TABLE public.user_presence RESET (fillfactor)")
    run_file(SQL / "down/public.active_calls.sql")
    run_sql("COMMENT ON COLUMN public.active_calls.duration IS 'How long it has been going on.'")
    run_file(SQL / "down/public.daily_billing_summary.sql")
    run_sql(
        """
        DO $$
        BEGIN
          REVOKE ALL ON TABLE public.daily_billing_summary FROM PUBLIC CASCADE;
          IF to_regrole('anon') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_billing_summary FROM anon CASCADE;
            IF oblivion.open_access() THEN
              GRANT SELECT ON TABLE public.daily_billing_summary TO anon;
            END IF;
          END IF;
          IF to_regrole('authenticated') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_billing_summary FROM authenticated CASCADE;
            GRANT SELECT ON TABLE public.daily_billing_summary TO authenticated;
          END IF;
          IF to_regrole('service_role') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_billing_summary FROM service_role CASCADE;
            GRANT SELECT ON TABLE public.daily_billing_summary TO service_role;
          END IF;
        END
        $$
        """
    )
    run_sql(
        """
        COMMENT ON VIEW public.daily_billing_summary IS
          'Calls by the UTC day on which they began, newest day first.'
        """
    )
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.call_date IS 'UTC day on which the calls began.'")
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.total_calls IS 'Calls of that day.'")
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.turn_calls IS 'Those that a TURN relay carried.'")
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.video_calls IS 'Those with video.'")
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.voice_calls IS 'Those with voice only.'")
    run_sql("COMMENT ON COLUMN public.daily_billing_summary.total_credits IS 'Sum of their credit_cost.'")
    run_sql(
        """
        COMMENT ON COLUMN public.daily_billing_summary.avg_duration_minutes IS
          'Mean length in minutes of those that ended; NULL where none did.'
        """
    )
    run_sql(
        """
        CREATE OR REPLACE TRIGGER update_user_presence_updated_at_trigger BEFORE UPDATE ON public.user_presence
          FOR EACH ROW
          EXECUTE FUNCTION public.update_user_presence_updated_at()
        """
    )
    run_sql(
        """
        COMMENT ON COLUMN public.user_presence.updated_at IS
          'When the host was last heard of; a trigger keeps it on updates.'
        """
    )
    run_file(SQL / "down/oblivion.host_presence.sql")
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON FUNCTION oblivion.host_presence(text) FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION oblivion.host_presence(text) FROM %I CASCADE', api_role);
            EXECUTE format('GRANT EXECUTE ON FUNCTION oblivion.host_presence(text) TO %I', api_role);
          END LOOP;
        END
        $$
        """
    )
    run_sql(
        """
        COMMENT ON FUNCTION oblivion.host_presence(text) IS
          'What anybody may know of a host, past row level security.'
        """
    )
    run_file(SQL / "down/public.host_presence.sql")
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON FUNCTION public.host_presence(text) FROM PUBLIC CASCADE;
          FOR api_role IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION public.host_presence(text) FROM %I CASCADE', api_role);
            EXECUTE format('GRANT EXECUTE ON FUNCTION public.host_presence(text) TO %I', api_role);
          END LOOP;
        END
        $$
        """
    )
    run_sql(
        """
        COMMENT ON FUNCTION public.host_presence(text) IS
          'Whether a host takes calls, where, and when the host was last heard of; no row for one that is not known.'
        """
    )
    run_sql("CREATE INDEX idx_token_usage_session_id ON public.token_usage (session_id)")
    run_sql('CREATE INDEX idx_token_usage_billing ON public.token_usage (mode, used_turn, "timestamp")')
    run_file(SQL / "down/public.user_token_summary.sql")
    run_sql(
        """
        DO $$
        BEGIN
          REVOKE ALL ON TABLE public.user_token_summary FROM PUBLIC CASCADE;
          IF to_regrole('anon') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.user_token_summary FROM anon CASCADE;
            IF oblivion.open_access() THEN
              GRANT SELECT ON TABLE public.user_token_summary TO anon;
            END IF;
          END IF;
          IF to_regrole('authenticated') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.user_token_summary FROM authenticated CASCADE;
            GRANT SELECT ON TABLE public.user_token_summary TO authenticated;
          END IF;
          IF to_regrole('service_role') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.user_token_summary FROM service_role CASCADE;
            GRANT SELECT ON TABLE public.user_token_summary TO service_role;
          END IF;
        END
        $$
        """
    )
    run_sql(
        """
        COMMENT ON VIEW public.user_token_summary IS
          'What each account has left and what it used, one row for each account.'
        """
    )
    run_sql("COMMENT ON COLUMN public.user_token_summary.user_id IS 'The account.'")
    run_sql("COMMENT ON COLUMN public.user_token_summary.tokens_remaining IS 'Tokens left to spend.'")
    run_sql("COMMENT ON COLUMN public.user_token_summary.subscription_tier IS 'free, pro or enterprise.'")
    run_sql("COMMENT ON COLUMN public.user_token_summary.account_created IS 'When the account was opened.'")
    run_sql(
        """
        COMMENT ON COLUMN public.user_token_summary.total_tokens_used IS
          'Tokens that it ever used; 0 where none were.'
        """
    )
    run_sql(
        """
        COMMENT ON COLUMN public.user_token_summary.total_sessions IS
          'Its rows of usage; 0 where there are none.'
        """
    )
    run_sql(
        """
        COMMENT ON COLUMN public.user_token_summary.last_usage IS
          'When it last used any; NULL where it never did.'
        """
    )
    run_file(SQL / "down/public.daily_token_usage.sql")
    run_sql(
        """
        DO $$
        BEGIN
          REVOKE ALL ON TABLE public.daily_token_usage FROM PUBLIC CASCADE;
          IF to_regrole('anon') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_token_usage FROM anon CASCADE;
            IF oblivion.open_access() THEN
              GRANT SELECT ON TABLE public.daily_token_usage TO anon;
            END IF;
          END IF;
          IF to_regrole('authenticated') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_token_usage FROM authenticated CASCADE;
            GRANT SELECT ON TABLE public.daily_token_usage TO authenticated;
          END IF;
          IF to_regrole('service_role') IS NOT NULL THEN
            REVOKE ALL ON TABLE public.daily_token_usage FROM service_role CASCADE;
            GRANT SELECT ON TABLE public.daily_token_usage TO service_role;
          END IF;
        END
        $$
        """
    )
    run_sql("COMMENT ON VIEW public.daily_token_usage IS 'Usage by UTC day, mode and TURN, newest day first.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.usage_date IS 'UTC day on which the usage was logged.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.mode IS 'voice or video.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.used_turn IS 'Whether the TURN rate applied.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.session_count IS 'Rows of usage.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.total_tokens IS 'Sum of their tokens.'")
    run_sql("COMMENT ON COLUMN public.daily_token_usage.avg_tokens_per_session IS 'Mean of their tokens.'")
    run_sql(
        """
        COMMENT ON COLUMN public.daily_token_usage.total_minutes IS
          'Sum of their lengths in minutes, unknown ones as zero.'
        """
    )
