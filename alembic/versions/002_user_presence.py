"""Host presence.

Why: callers must know which host is free; a host's page upserts its one row.
Locks: on an empty database none that anybody can wait for. A user_presence that is there already against everybody:
0.03 s for a thousand hosts.
"""

from pathlib import Path

from oblivion_schema.operations import join_realtime, run_file, run_sql
from oblivion_schema.operations.adoption import (
    begin_adoption,
    drop_index_as_made,
    drop_index_unless,
    drop_policy_as_made,
    drop_unless_adopted,
    fill_nulls,
    lock_together,
    note_others,
    release_adopted,
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
    take_over_columns()
    begin_adoption("user_presence", "Which hosts can take a call now, one row for each host.", COLUMNS)
    drop_index_unless("user_presence", "idx_user_presence_host_unique", "CREATE UNIQUE INDEX % USING btree (host_id)")
    move_duplicates()
    run_file(SQL / "public.update_user_presence_updated_at.sql")
    run_file(SQL / "public.user_presence.sql")
    fill_nulls(
        "user_presence",
        host_id="''",
        # The table's own default: the first script's was false, and no forgotten host is to take calls by this.
        is_available=(
            "coalesce((SELECT pg_get_expr(adbin, adrelid) FROM pg_catalog.pg_attrdef JOIN pg_catalog.pg_attribute"
            " ON attrelid = adrelid AND attnum = adnum WHERE attrelid = 'public.user_presence'::regclass"
            " AND attname = 'is_available')::boolean, true)"
        ),
        updated_at="now()",
    )
    run_sql(
        """
        ALTER TABLE public.user_presence
          ALTER id SET DEFAULT gen_random_uuid(),
          ALTER is_available SET DEFAULT true,
          ALTER updated_at SET DEFAULT now()
        """
    )
    drop_policy_as_made("user_presence", "Allow all operations on user_presence")
    drop_policy_as_made("user_presence", "Allow read for anyone", reads_only=True)
    drop_index_as_made("user_presence", "idx_user_presence_host_available", "host_id, is_available")
    drop_index_as_made("user_presence", "idx_user_presence_updated_at", "updated_at")
    run_sql("CREATE UNIQUE INDEX IF NOT EXISTS idx_user_presence_host_unique ON public.user_presence (host_id)")
    run_sql(
        """
        CREATE OR REPLACE TRIGGER update_user_presence_updated_at_trigger
        BEFORE UPDATE ON public.user_presence
        FOR EACH ROW EXECUTE FUNCTION public.update_user_presence_updated_at()
        """
    )

    run_file(SQL / "oblivion.host_presence.sql")
    run_file(SQL / "public.host_presence.sql")

    rows = "oblivion.open_access() OR oblivion.is_service_role() OR host_id = (SELECT oblivion.current_user_id())"
    run_sql("ALTER TABLE public.user_presence ENABLE ROW LEVEL SECURITY")
    for name, policy in (
        ("user_presence_select", f"FOR SELECT TO public USING ({rows})"),
        ("user_presence_insert", f"FOR INSERT TO public WITH CHECK ({rows})"),
        ("user_presence_update", f"FOR UPDATE TO public USING ({rows}) WITH CHECK ({rows})"),
        ("user_presence_delete", f"FOR DELETE TO public USING ({rows})"),
    ):
        run_sql(f"DROP POLICY IF EXISTS {name} ON public.user_presence")
        run_sql(f"CREATE POLICY {name} ON public.user_presence {policy}")

    run_sql(
        """
        DO $$
        DECLARE
          api_role name;
        BEGIN
          REVOKE ALL ON public.user_presence FROM PUBLIC CASCADE;
          REVOKE ALL ON FUNCTION public.update_user_presence_updated_at() FROM PUBLIC CASCADE;
          REVOKE ALL ON FUNCTION oblivion.host_presence(text), public.host_presence(text) FROM PUBLIC CASCADE;
          FOR api_role IN
            SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
          LOOP
            EXECUTE format('REVOKE ALL ON public.user_presence FROM %I CASCADE', api_role);
            EXECUTE format('REVOKE ALL ON FUNCTION public.update_user_presence_updated_at() FROM %I CASCADE', api_role);
            EXECUTE format(
              'GRANT EXECUTE ON FUNCTION oblivion.host_presence(text), public.host_presence(text) TO %I', api_role
            );
            IF oblivion.open_access() OR api_role <> 'anon' THEN
              EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON public.user_presence TO %I', api_role);
            END IF;
          END LOOP;
        END
        $$
        """
    )
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
    for thing, comment in (
        ("FUNCTION public.update_user_presence_updated_at()", "Trigger: stamps updated_at with the server''s clock."),
        ("FUNCTION oblivion.host_presence(text)", "What anybody may know of a host, past row level security."),
        (
            "FUNCTION public.host_presence(text)",
            "Whether a host takes calls, where, and when the host was last heard of; no row for one that is not known.",
        ),
        ("TABLE public.user_presence", "Which hosts can take a call now, one row for each host."),
        ("COLUMN public.user_presence.id", "The row."),
        ("COLUMN public.user_presence.host_id", "The host; clients upsert on it."),
        ("COLUMN public.user_presence.is_available", "Whether the host takes calls."),
        ("COLUMN public.user_presence.room_id", "Where a caller meets the host."),
        ("COLUMN public.user_presence.updated_at", "When the host was last heard of; a trigger keeps it on updates."),
        ("COLUMN public.user_presence.room_token", "Secret that opens the room."),
    ):
        run_sql(f"COMMENT ON {thing} IS '{comment}'")


def downgrade() -> None:
    run_sql(
        """
        DO $$
        BEGIN
          LOCK TABLE public.user_presence IN ACCESS EXCLUSIVE MODE;
          IF coalesce(current_setting('oblivion.drop_data', true), '') <> 'yes'
            AND NOT EXISTS (SELECT FROM oblivion.adoption_log WHERE kind = 'table' AND name = 'public.user_presence')
            AND EXISTS (SELECT FROM public.user_presence)
          THEN
            RAISE EXCEPTION 'public.user_presence holds rows, which this downgrade would drop'
              USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Save them first, then say alembic -x drop-data=yes downgrade';
          END IF;
        END
        $$
        """
    )
    run_sql("DROP FUNCTION public.host_presence(text)")
    run_sql("DROP FUNCTION oblivion.host_presence(text)")
    release_adopted("user_presence", POLICIES)
    drop_unless_adopted(
        "user_presence",
        "DROP TABLE public.user_presence",
        "DROP FUNCTION public.update_user_presence_updated_at()",
    )


def take_over_columns() -> None:
    """Give the first script's table the names and columns that came later."""
    run_sql(
        """
        DO $$
        DECLARE
          names name[];
        BEGIN
          IF NOT EXISTS (
            SELECT FROM pg_catalog.pg_class
            WHERE oid = to_regclass('public.user_presence') AND relkind = 'r' AND pg_has_role(relowner, 'USAGE')
          ) THEN
            RETURN;
          END IF;
          SELECT array_agg(attname) INTO names
          FROM pg_catalog.pg_attribute
          WHERE attrelid = to_regclass('public.user_presence') AND NOT attisdropped;
          IF 'user_id' = ANY (names) AND NOT 'host_id' = ANY (names) THEN
            ALTER TABLE public.user_presence RENAME COLUMN user_id TO host_id;
            INSERT INTO oblivion.adoption_log (kind, name, why)
            VALUES ('renamed', 'public.user_presence.host_id', 'It was user_id, which no client writes.');
          ELSIF 'user_id' = ANY (names) THEN
            -- Somebody put host_id beside it. No UPDATE: triggers would stamp the rows, and policies might hide some.
            ALTER TABLE public.user_presence
              ALTER host_id TYPE text USING coalesce(host_id, user_id),
              ALTER user_id DROP NOT NULL;
            INSERT INTO oblivion.adoption_log (kind, name, why)
            VALUES ('renamed', 'public.user_presence.host_id', 'It is user_id, where it was NULL.');
          END IF;
          IF EXISTS (
            SELECT FROM pg_catalog.pg_constraint
            WHERE conrelid = to_regclass('public.user_presence') AND conname = 'idx_user_presence_host_unique'
          ) THEN
            ALTER TABLE public.user_presence DROP CONSTRAINT idx_user_presence_host_unique;
          END IF;
          ALTER TABLE public.user_presence ADD COLUMN IF NOT EXISTS room_token text;
        END
        $$
        """
    )


def move_duplicates() -> None:
    """Leave one row for each host, the newest; the log takes the others."""
    run_sql(
        """
        DO $$
        BEGIN
          IF to_regclass('public.user_presence') IS NULL OR to_regclass('public.idx_user_presence_host_unique') IS NOT NULL
          THEN
            RETURN;
          END IF;
          IF NOT EXISTS (SELECT FROM public.user_presence GROUP BY host_id HAVING count(*) > 1) THEN
            RETURN;
          END IF;
          IF EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE confrelid = 'public.user_presence'::regclass) THEN
            RAISE EXCEPTION 'public.user_presence has hosts with several rows, and another table refers to them'
              USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Leave one row for each host, and run it again';
          END IF;
          WITH ranked AS (
            SELECT
              id,
              first_value(id) OVER newest_first AS kept,
              row_number() OVER newest_first AS place
            FROM public.user_presence
            WINDOW newest_first AS (PARTITION BY host_id ORDER BY updated_at DESC NULLS LAST, id)
          ),
          moved AS (
            DELETE FROM public.user_presence AS p
            USING ranked
            WHERE ranked.id = p.id AND place > 1
            RETURNING p.*, kept
          )
          INSERT INTO oblivion.adoption_log (kind, name, why, was)
          SELECT
            'row',
            'public.user_presence',
            format('Host %s has a newer row, %s.', host_id, kept),
            (to_jsonb(moved) - 'kept')::json
          FROM moved;
        END
        $$
        """
    )
