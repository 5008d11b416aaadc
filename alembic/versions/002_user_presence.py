"""Host presence.

Why: callers have to know which host is free. The page of a host upserts the one row of the host.
Locks: nothing that another session can wait for on an empty database. An existing user_presence is locked against reads
and writes: 0.03 s for a thousand hosts.
"""

from pathlib import Path

from oblivion_schema.operations import join_realtime, run_file, run_sql
from oblivion_schema.operations.adoption import (
    begin_adoption,
    create_index,
    drop_index_as_made,
    drop_index_unless,
    drop_policy_as_made,
    drop_unless_adopted,
    fill_nulls,
    lock_together,
    note_others,
    release_adopted,
    set_defaults,
)

revision = "002"
down_revision = "001"
branch_labels = None
depends_on = None

SQL = Path(__file__).with_suffix("")


COLUMNS = {
    "id": "uuid",
    "host_id": "text",
    "is_available": "boolean",
    "room_id": "text",
    "updated_at": "timestamp with time zone",
    "room_token": "text",
}
POLICIES = ("user_presence_select", "user_presence_insert", "user_presence_update", "user_presence_delete")


def upgrade() -> None:
    lock_together("user_presence")
    run_file(SQL / "take_over_columns.sql")
    begin_adoption("user_presence", "Which hosts can take a call now, one row for each host.", COLUMNS)
    drop_index_unless("user_presence", "idx_user_presence_host_unique", "CREATE UNIQUE INDEX % USING btree (host_id)")
    run_file(SQL / "move_duplicates.sql")
    run_file(SQL / "public.update_user_presence_updated_at.sql")
    run_file(SQL / "public.user_presence.sql")
    fill_nulls(
        "user_presence",
        host_id="''",
        # The default of the existing table: the first script's was false, and a forgotten host must not take calls.
        is_available=(
            "coalesce((SELECT pg_get_expr(adbin, adrelid) FROM pg_catalog.pg_attrdef JOIN pg_catalog.pg_attribute"
            " ON attrelid = adrelid AND attnum = adnum WHERE attrelid = 'public.user_presence'::regclass"
            " AND attname = 'is_available')::boolean, true)"
        ),
        updated_at="now()",
    )
    set_defaults("user_presence", {"id": "gen_random_uuid()", "is_available": "true", "updated_at": "now()"})
    drop_policy_as_made("user_presence", "Allow all operations on user_presence")
    drop_policy_as_made("user_presence", "Allow read for anyone", reads_only=True)
    drop_index_as_made("user_presence", "idx_user_presence_host_available", "host_id, is_available")
    drop_index_as_made("user_presence", "idx_user_presence_updated_at", "updated_at")
    create_index("user_presence", "idx_user_presence_host_unique", "host_id", unique=True)
    run_sql(
        """
        CREATE OR REPLACE TRIGGER update_user_presence_updated_at_trigger
        BEFORE UPDATE ON public.user_presence
        FOR EACH ROW EXECUTE FUNCTION public.update_user_presence_updated_at()
        """
    )

    run_file(SQL / "oblivion.host_presence.sql")
    run_file(SQL / "public.host_presence.sql")
    run_file(SQL / "policies.sql")
    run_file(SQL / "grants.sql")
    join_realtime("user_presence")

    note_others(
        "user_presence",
        list(COLUMNS),
        [
            "user_presence_pkey",
            "idx_user_presence_host_unique",
            "update_user_presence_updated_at_trigger",
            "supabase_realtime",
            *POLICIES,
        ],
    )


def downgrade() -> None:
    run_file(SQL / "down/refuse_to_drop_rows.sql")
    run_sql("DROP FUNCTION public.host_presence(text)")
    run_sql("DROP FUNCTION oblivion.host_presence(text)")
    release_adopted("user_presence", POLICIES)
    drop_unless_adopted(
        "user_presence",
        "DROP TABLE public.user_presence",
        "DROP FUNCTION public.update_user_presence_updated_at()",
    )
