"""Call sessions.

Why: the record of embedded calls, with the two reports that read it, for clients that reach them through PostgREST; and
what all policies ask: the access mode, and who is signed in.
Locks: on an empty database none that anybody can wait for. A call_sessions that is there already, together with all
other tables and views that the run will take over, against everybody, all of them at once or none, until the run ends:
0.31 s for a million calls, 0.04 s after `oblivion-schema prepare`.
"""

from pathlib import Path

from oblivion_schema.operations import join_realtime, run_file, run_sql
from oblivion_schema.operations.adoption import (
    add_rule,
    begin_adoption,
    drop_index_as_made,
    drop_index_unless,
    drop_policy_as_made,
    drop_unless_adopted,
    fill_nulls,
    lock_together,
    note_others,
    release_adopted,
    replace_view,
)

revision = "001"
down_revision = None
branch_labels = None
depends_on = None

SQL = Path(__file__).with_suffix("")


COLUMNS = {
    "id": "uuid",
    "room_id": "text",
    "start_time": "timestamp with time zone",
    "end_time": "timestamp with time zone",
    "mode": "text",
    "used_turn": "boolean",
    "credit_cost": "numeric(10,4)",
    "user_id": "text",
    "created_at": "timestamp with time zone",
    "updated_at": "timestamp with time zone",
}
INDEXES = (
    "idx_call_sessions_room_id",
    "idx_call_sessions_start_time",
    "idx_call_sessions_user_id",
    "idx_call_sessions_billing",
    "idx_call_sessions_active",
)
POLICIES = ("call_sessions_select", "call_sessions_insert", "call_sessions_update", "call_sessions_delete")


def upgrade() -> None:
    # All that this run will take over, for a run is one transaction.
    lock_together(
        "active_calls",
        "daily_billing_summary",
        "user_token_summary",
        "daily_token_usage",
        "call_sessions",
        "user_presence",
        "token_usage",
        "user_accounts",
    )
    # The roles are the server's: a downgrade leaves them, for another database may use them.
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          FOREACH api_role IN ARRAY ARRAY['anon', 'authenticated', 'service_role'] LOOP
            CONTINUE WHEN to_regrole(api_role) IS NOT NULL;
            BEGIN
              EXECUTE format('CREATE ROLE %I NOLOGIN NOINHERIT', api_role);
              IF api_role = 'service_role' AND current_setting('is_superuser') = 'on' THEN
                ALTER ROLE service_role BYPASSRLS;
              END IF;
            EXCEPTION
              WHEN insufficient_privilege OR duplicate_object OR unique_violation THEN
                NULL;
            END;
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
          REVOKE ALL ON SCHEMA oblivion FROM PUBLIC CASCADE;
          FOR api_role IN
            SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
          LOOP
            EXECUTE format('REVOKE ALL ON SCHEMA oblivion FROM %I CASCADE', api_role);
            IF NOT has_schema_privilege(api_role, 'public', 'USAGE') THEN
              EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', api_role);
            END IF;
          END LOOP;
        END
        $$
        """
    )
    run_sql("COMMENT ON SCHEMA oblivion IS 'What clients never see: the version table, and helpers of the schema.'")
    create_adoption_log()
    create_access_functions()
    begin_adoption("call_sessions", "One row for each embedded call.", COLUMNS)
    run_file(SQL / "public.update_updated_at_column.sql")
    run_file(SQL / "public.call_sessions.sql")
    fill_nulls(
        "call_sessions",
        start_time="coalesce(created_at, end_time, updated_at, now())",
        used_turn="false",
        credit_cost="0.00",
        created_at="coalesce(start_time, end_time, updated_at, now())",
        updated_at="coalesce(greatest(start_time, end_time, created_at), now())",
    )
    run_sql(
        """
        ALTER TABLE public.call_sessions
          ALTER id SET DEFAULT gen_random_uuid(),
          ALTER start_time SET DEFAULT now(),
          ALTER used_turn SET DEFAULT false,
          ALTER credit_cost SET DEFAULT 0.00,
          ALTER created_at SET DEFAULT now(),
          ALTER updated_at SET DEFAULT now()
        """
    )
    add_rule("call_sessions", "call_sessions_mode_check", "CHECK (mode IN ('video', 'voice-only'))")
    drop_policy_as_made("call_sessions", "Allow all operations on call_sessions")
    drop_index_as_made("call_sessions", "idx_call_sessions_used_turn", "used_turn")
    for name in INDEXES:
        drop_index_unless("call_sessions", name)
    run_sql("CREATE INDEX IF NOT EXISTS idx_call_sessions_room_id ON public.call_sessions (room_id)")
    run_sql("CREATE INDEX IF NOT EXISTS idx_call_sessions_start_time ON public.call_sessions (start_time)")
    run_sql("CREATE INDEX IF NOT EXISTS idx_call_sessions_user_id ON public.call_sessions (user_id)")
    run_sql("CREATE INDEX IF NOT EXISTS idx_call_sessions_billing ON public.call_sessions (used_turn, start_time)")
    run_sql(
        """
        CREATE INDEX IF NOT EXISTS idx_call_sessions_active
        ON public.call_sessions (start_time) WHERE end_time IS NULL
        """
    )
    run_sql(
        """
        CREATE OR REPLACE TRIGGER update_call_sessions_updated_at
        BEFORE UPDATE ON public.call_sessions
        FOR EACH ROW EXECUTE FUNCTION public.update_updated_at_column()
        """
    )

    anybody = "oblivion.open_access() OR oblivion.is_service_role()"
    own = "user_id = (SELECT oblivion.current_user_id())"
    run_sql("ALTER TABLE public.call_sessions ENABLE ROW LEVEL SECURITY")
    for name, policy in (
        ("call_sessions_select", f"FOR SELECT TO public USING ({anybody} OR {own})"),
        ("call_sessions_insert", f"FOR INSERT TO public WITH CHECK ({anybody} OR ({own} AND credit_cost = 0))"),
        ("call_sessions_update", f"FOR UPDATE TO public USING ({anybody}) WITH CHECK ({anybody})"),
        ("call_sessions_delete", f"FOR DELETE TO public USING ({anybody})"),
    ):
        run_sql(f"DROP POLICY IF EXISTS {name} ON public.call_sessions")
        run_sql(f"CREATE POLICY {name} ON public.call_sessions {policy}")

    replace_view(
        "active_calls",
        """
        SELECT
          id,
          room_id,
          mode,
          used_turn,
          start_time,
          now() - start_time AS duration
        FROM public.call_sessions
        WHERE end_time IS NULL
        ORDER BY start_time DESC
        """,
    )
    replace_view(
        "daily_billing_summary",
        """
        SELECT
          (start_time AT TIME ZONE 'UTC')::date AS call_date,
          count(*) AS total_calls,
          count(*) FILTER (WHERE used_turn) AS turn_calls,
          count(*) FILTER (WHERE mode = 'video') AS video_calls,
          count(*) FILTER (WHERE mode = 'voice-only') AS voice_calls,
          sum(credit_cost) AS total_credits,
          avg(extract(epoch FROM end_time - start_time) / 60) AS avg_duration_minutes
        FROM public.call_sessions
        GROUP BY call_date
        ORDER BY call_date DESC
        """,
    )

    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON public.call_sessions, public.active_calls, public.daily_billing_summary FROM PUBLIC CASCADE;
          REVOKE ALL ON FUNCTION public.update_updated_at_column() FROM PUBLIC CASCADE;
          FOR api_role IN
            SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
          LOOP
            EXECUTE format(
              'REVOKE ALL ON public.call_sessions, public.active_calls, public.daily_billing_summary FROM %I CASCADE', api_role
            );
            EXECUTE format('REVOKE ALL ON FUNCTION public.update_updated_at_column() FROM %I CASCADE', api_role);
            IF oblivion.open_access() OR api_role = 'service_role' THEN
              EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.call_sessions TO %I', api_role);
              EXECUTE format('GRANT SELECT ON public.active_calls, public.daily_billing_summary TO %I', api_role);
            ELSIF api_role = 'authenticated' THEN
              GRANT SELECT, INSERT (room_id, start_time, mode, used_turn, credit_cost, user_id)
                ON public.call_sessions TO authenticated;
              GRANT SELECT ON public.active_calls, public.daily_billing_summary TO authenticated;
            END IF;
          END LOOP;
        END
        $$
        """
    )
    join_realtime("call_sessions")

    note_others(
        "call_sessions",
        list(COLUMNS),
        [
            "call_sessions_pkey",
            "call_sessions_mode_check",
            *INDEXES,
            "update_call_sessions_updated_at",
            "supabase_realtime",
            *POLICIES,
        ],
    )
    for thing, comment in (
        ("TABLE oblivion.adoption_log", "What upgrades found in tables that were made by hand, and what became of it."),
        ("COLUMN oblivion.adoption_log.id", "The entry."),
        (
            "COLUMN oblivion.adoption_log.kind",
            "table: taken over; renamed, filled, row, not valid, forced: what became of it; else what is not ours.",
        ),
        ("COLUMN oblivion.adoption_log.name", "Of what."),
        ("COLUMN oblivion.adoption_log.why", "What was done, and why."),
        ("COLUMN oblivion.adoption_log.was", "A row that was moved here; or how what is not ours was defined."),
        ("COLUMN oblivion.adoption_log.logged_at", "When the upgrade began."),
        ("FUNCTION oblivion.open_access()", "The access mode: true in the open one."),
        ("FUNCTION oblivion.is_service_role()", "Whether service_role asks, which reaches all rows in both modes."),
        ("FUNCTION oblivion.current_user_id()", "Who is signed in: sub of the JWT, or NULL where that is no text."),
        ("FUNCTION public.update_updated_at_column()", "Trigger: stamps updated_at with the server''s clock."),
        ("TABLE public.call_sessions", "One row for each embedded call."),
        ("COLUMN public.call_sessions.id", "The call."),
        ("COLUMN public.call_sessions.room_id", "Room identifier, chosen by the embedding page."),
        ("COLUMN public.call_sessions.start_time", "When the call began; clients send their own clock."),
        ("COLUMN public.call_sessions.end_time", "When the call ended; NULL while it is going on."),
        ("COLUMN public.call_sessions.mode", "What the call carries: video or voice-only."),
        ("COLUMN public.call_sessions.used_turn", "Whether a TURN relay carried the media."),
        ("COLUMN public.call_sessions.credit_cost", "What the call cost, as its client reports it."),
        (
            "COLUMN public.call_sessions.user_id",
            "Who pays: an account, anonymous_<n>, or NULL. Free text: no account need exist.",
        ),
        ("COLUMN public.call_sessions.created_at", "When the row was written."),
        ("COLUMN public.call_sessions.updated_at", "When the row last changed; kept by a trigger."),
        ("VIEW public.active_calls", "Calls that are going on, newest first."),
        ("COLUMN public.active_calls.id", "The call."),
        ("COLUMN public.active_calls.room_id", "Its room."),
        ("COLUMN public.active_calls.mode", "video or voice-only."),
        ("COLUMN public.active_calls.used_turn", "Whether a TURN relay carries the media."),
        ("COLUMN public.active_calls.start_time", "When it began."),
        ("COLUMN public.active_calls.duration", "How long it has been going on."),
        ("VIEW public.daily_billing_summary", "Calls by the UTC day on which they began, newest day first."),
        ("COLUMN public.daily_billing_summary.call_date", "UTC day on which the calls began."),
        ("COLUMN public.daily_billing_summary.total_calls", "Calls of that day."),
        ("COLUMN public.daily_billing_summary.turn_calls", "Those that a TURN relay carried."),
        ("COLUMN public.daily_billing_summary.video_calls", "Those with video."),
        ("COLUMN public.daily_billing_summary.voice_calls", "Those with voice only."),
        ("COLUMN public.daily_billing_summary.total_credits", "Sum of their credit_cost."),
        (
            "COLUMN public.daily_billing_summary.avg_duration_minutes",
            "Mean length in minutes of those that ended; NULL where none did.",
        ),
    ):
        run_sql(f"COMMENT ON {thing} IS '{comment}'")


def downgrade() -> None:
    run_sql(
        """
        DO $$
        BEGIN
          LOCK TABLE public.call_sessions IN ACCESS EXCLUSIVE MODE;
          IF coalesce(current_setting('oblivion.drop_data', true), '') <> 'yes'
            AND NOT EXISTS (SELECT FROM oblivion.adoption_log WHERE kind = 'table' AND name = 'public.call_sessions')
            AND EXISTS (SELECT FROM public.call_sessions)
          THEN
            RAISE EXCEPTION 'public.call_sessions holds rows, which this downgrade would drop'
              USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Save them first, then say alembic -x drop-data=yes downgrade';
          END IF;
        END
        $$
        """
    )
    release_adopted("call_sessions", POLICIES)
    drop_unless_adopted(
        "call_sessions",
        "DROP VIEW public.daily_billing_summary",
        "DROP VIEW public.active_calls",
        "DROP TABLE public.call_sessions",
    )
    run_sql(
        """
        DO $$
        BEGIN
          DROP FUNCTION public.update_updated_at_column();
        EXCEPTION
          WHEN dependent_objects_still_exist THEN
            NULL;
        END
        $$
        """
    )
    run_sql("DROP FUNCTION oblivion.current_user_id()")
    run_sql("DROP FUNCTION oblivion.is_service_role()")
    run_sql("DROP FUNCTION oblivion.open_access()")
    # Rows that were moved there are somebody's: they outlive the schema.
    run_sql(
        """
        DO $$
        BEGIN
          DELETE FROM oblivion.adoption_log WHERE kind <> 'row';
          IF EXISTS (SELECT FROM oblivion.adoption_log) THEN
            ALTER TABLE oblivion.adoption_log ENABLE ROW LEVEL SECURITY;
            ALTER TABLE oblivion.adoption_log SET SCHEMA public;
          ELSE
            DROP TABLE oblivion.adoption_log;
          END IF;
        END
        $$
        """
    )
    run_sql("COMMENT ON SCHEMA oblivion IS NULL")


def create_adoption_log() -> None:
    """Create the log, or take back the one that a downgrade left."""
    run_sql(
        """
        DO $$
        BEGIN
          IF to_regclass('oblivion.adoption_log') IS NULL
            AND obj_description(to_regclass('public.adoption_log'), 'pg_class')
              = 'What upgrades found in tables that were made by hand, and what became of it.'
          THEN
            ALTER TABLE public.adoption_log SET SCHEMA oblivion;
            ALTER TABLE oblivion.adoption_log DISABLE ROW LEVEL SECURITY;
          END IF;
        END
        $$
        """
    )
    run_file(SQL / "oblivion.adoption_log.sql")


def create_access_functions() -> None:
    """Create what policies ask; a mode that the database is in already stays."""
    run_sql(
        """
        DO $$
        BEGIN
          IF to_regprocedure('oblivion.open_access()') IS NOT NULL THEN
            NULL;
          ELSIF coalesce(current_setting('oblivion.access', true), '') = 'authenticated' THEN
            CREATE FUNCTION oblivion.open_access()
            RETURNS boolean
            LANGUAGE sql
            IMMUTABLE PARALLEL SAFE
            SET search_path = ''
            RETURN false;
          ELSE
            CREATE FUNCTION oblivion.open_access()
            RETURNS boolean
            LANGUAGE sql
            IMMUTABLE PARALLEL SAFE
            SET search_path = ''
            RETURN true;
          END IF;
        END
        $$
        """
    )
    # IMMUTABLE for the planner to fold it: a plan with policies in it is made for one role, and never runs as another.
    run_file(SQL / "oblivion.is_service_role.sql")
    # PARALLEL UNSAFE: up to 16 no block that handles errors may be entered while a query runs in parallel.
    run_file(SQL / "oblivion.current_user_id.sql")
    # Whoever may query a table, an operator's own role too, has to be able to call what its policies call.
    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          FOR api_role IN
            SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
          LOOP
            EXECUTE format(
              'REVOKE ALL ON FUNCTION oblivion.open_access(), oblivion.is_service_role(), oblivion.current_user_id()'
                ' FROM %I CASCADE',
              api_role
            );
          END LOOP;
          GRANT EXECUTE ON FUNCTION oblivion.open_access(), oblivion.is_service_role(), oblivion.current_user_id()
            TO PUBLIC;
        END
        $$
        """
    )
