"""Host presence.

Why: callers must know which host is free; a host's page upserts its one row.
Locks: none that anybody can wait for on an empty database. Run again over its own table: user_presence against
everybody, from its policies to the end of the upgrade.
"""

from oblivion_schema.operations import run_sql

revision = "002"
down_revision = "001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    refuse_hand_made_table()
    run_sql(
        """
        CREATE OR REPLACE FUNCTION public.update_user_presence_updated_at()
        RETURNS trigger
        LANGUAGE plpgsql
        SET search_path = ''
        AS $$
        BEGIN
          NEW.updated_at = now();
          RETURN NEW;
        END
        $$
        """
    )
    run_sql(
        """
        CREATE TABLE IF NOT EXISTS public.user_presence (
          id uuid DEFAULT gen_random_uuid() NOT NULL,
          host_id text NOT NULL,
          is_available boolean DEFAULT true NOT NULL,
          room_id text NOT NULL,
          updated_at timestamptz DEFAULT now() NOT NULL,
          room_token text,
          CONSTRAINT user_presence_pkey PRIMARY KEY (id)
        )
        """
    )
    run_sql("CREATE UNIQUE INDEX IF NOT EXISTS idx_user_presence_host_unique ON public.user_presence (host_id)")
    run_sql(
        """
        CREATE OR REPLACE TRIGGER update_user_presence_updated_at_trigger
        BEFORE UPDATE ON public.user_presence
        FOR EACH ROW EXECUTE FUNCTION public.update_user_presence_updated_at()
        """
    )

    run_sql(
        """
        CREATE OR REPLACE FUNCTION oblivion.host_presence(host_id text)
        RETURNS TABLE (is_available boolean, room_id text, updated_at timestamptz)
        LANGUAGE sql
        STABLE SECURITY DEFINER
        SET search_path = ''
        BEGIN ATOMIC
          SELECT p.is_available, p.room_id, p.updated_at
          FROM public.user_presence AS p
          WHERE p.host_id = host_presence.host_id;
        END
        """
    )
    run_sql(
        """
        CREATE OR REPLACE FUNCTION public.host_presence(host_id text)
        RETURNS TABLE (is_available boolean, room_id text, updated_at timestamptz)
        LANGUAGE sql
        STABLE
        SET search_path = ''
        BEGIN ATOMIC
          SELECT h.is_available, h.room_id, h.updated_at
          FROM oblivion.host_presence(host_presence.host_id) AS h;
        END
        """
    )

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
          REVOKE ALL ON public.user_presence FROM PUBLIC;
          REVOKE ALL ON FUNCTION public.update_user_presence_updated_at() FROM PUBLIC;
          REVOKE ALL ON FUNCTION oblivion.host_presence(text), public.host_presence(text) FROM PUBLIC;
          FOR api_role IN
            SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')
          LOOP
            EXECUTE format('REVOKE ALL ON public.user_presence FROM %I', api_role);
            EXECUTE format('REVOKE ALL ON FUNCTION public.update_user_presence_updated_at() FROM %I', api_role);
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
    run_sql(
        """
        DO $$
        BEGIN
          IF EXISTS (
            SELECT FROM pg_catalog.pg_publication AS p
            WHERE pubname = 'supabase_realtime' AND NOT puballtables AND NOT EXISTS (
              SELECT FROM pg_catalog.pg_publication_rel
              WHERE prpubid = p.oid AND prrelid = 'public.user_presence'::regclass
            )
          ) THEN
            ALTER PUBLICATION supabase_realtime ADD TABLE public.user_presence;
          END IF;
        END
        $$
        """
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
    run_sql("DROP TABLE public.user_presence")
    run_sql("DROP FUNCTION public.update_user_presence_updated_at()")


def refuse_hand_made_table() -> None:
    """Stop before a table of the old scripts: taking one over is not in this revision yet."""
    run_sql(
        """
        DO $$
        BEGIN
          IF to_regclass('public.user_presence') IS NOT NULL AND 5 <> (
            SELECT count(*) FROM pg_catalog.pg_attribute
            WHERE attrelid = to_regclass('public.user_presence') AND attnotnull AND attname IN (
              'id', 'host_id', 'is_available', 'room_id', 'updated_at'
            )
          ) THEN
            RAISE EXCEPTION 'public.user_presence was made by hand, and this version cannot take it over'
              USING ERRCODE = 'object_not_in_prerequisite_state',
                HINT = 'Use an empty database, or rename the table first';
          END IF;
        END
        $$
        """
    )
