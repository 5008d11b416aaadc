"""What revisions do to take over tables that people made by hand, without losing a row.

Each operation is one statement of static SQL, which looks at the database when it runs. It does nothing where there is
no such table, and notes in `oblivion.adoption_log` what it found. As with all operations, what they do never changes.

`inspect` and `prepare` hear what these operations are asked for. They do not read the text that `run_sql()` gets: what
changes a table that people made by hand has an operation here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from oblivion_schema.declare.sql import statements_of

from . import heard, run_sql, send_batch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@heard
def lock_together(*relations: str) -> None:
    """Lock those of these tables and views that there are against everybody, all of them or none.

    Clients lock them in orders of their own. Who waits here waits in the queue, so that a busy table has its turn, but
    never as long as a deadlock takes to be seen, and then gives back all of them: no client is ever its victim. Raises
    lock_not_available after the lock timeout.
    """
    names = ", ".join(f"'{relation}'" for relation in relations)
    # By itself: an error names who holds a relation of the statement that failed.
    send_batch()
    run_sql(_LOCK_TOGETHER.replace("<relations>", names))
    send_batch()


_LOCK_TOGETHER = """
DO $$
DECLARE
  -- Those of somebody else may not be locked, and are refused later, by name. LOCK of a view would lock its tables,
  -- and who queues for these may hold another view, whose turn would then never come: each view is locked by itself.
  statements CONSTANT text[] := ARRAY(
    SELECT format(
      CASE relkind
        WHEN 'v' THEN 'ALTER VIEW public.%I OWNER TO %s'
        ELSE 'LOCK TABLE public.%I IN ACCESS EXCLUSIVE MODE'
      END,
      name,
      relowner::regrole
    )
    FROM unnest(ARRAY[<relations>]) WITH ORDINALITY AS relation (name, place)
    JOIN pg_catalog.pg_class AS c ON c.oid = to_regclass('public.' || name)
    WHERE pg_has_role(relowner, 'USAGE')
    ORDER BY relkind <> 'v', place
  );
  patience CONSTANT text := current_setting('lock_timeout');
  deadline CONSTANT timestamptz := clock_timestamp() + coalesce(nullif(patience, '0'), '1 day')::interval;
  give_up timestamptz;
  vacuumed regclass;
  statement text;
BEGIN
  LOOP
    BEGIN
      SELECT l.relation INTO vacuumed
      FROM pg_catalog.pg_locks AS l
      JOIN unnest(ARRAY[<relations>]) AS name ON l.relation = to_regclass('public.' || name)
      JOIN pg_catalog.pg_class AS c ON c.oid = l.relation
      WHERE l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
        AND l.mode = 'ShareUpdateExclusiveLock' AND l.granted AND l.pid <> pg_backend_pid()
        AND pg_has_role(relowner, 'USAGE')
      LIMIT 1;
      IF vacuumed IS NOT NULL THEN
        -- Autovacuum gives way, once somebody has waited for it for so long. Nothing else is held meanwhile.
        PERFORM set_config('lock_timeout', '1500ms', true);
        EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', vacuumed);
      END IF;
      -- Longer than most queries take, and all together shorter than a deadlock takes to be seen.
      give_up := clock_timestamp() + interval '800 milliseconds';
      FOREACH statement IN ARRAY statements LOOP
        PERFORM set_config('lock_timeout', least(
          400, greatest(1, extract(epoch FROM give_up - clock_timestamp()) * 1000)
        )::integer::text, true);
        EXECUTE statement;
      END LOOP;
      PERFORM set_config('lock_timeout', patience, true);
      EXIT;
    EXCEPTION
      WHEN lock_not_available THEN
        -- The end of this block gave back what it held, and the timeout.
        IF clock_timestamp() > deadline THEN
          RAISE;
        END IF;
    END;
    PERFORM pg_sleep(0.02 * random());
  END LOOP;
END
$$
"""


@heard
def begin_adoption(table: str, comment: str, columns: Mapping[str, str]) -> None:
    """Note that `public.<table>` was there before, unless `comment`, which ours has, is on it.

    `columns` gives the type of each column that it must have. Raises object_not_in_prerequisite_state where it is none
    that can be taken over.
    """
    values = ", ".join(f"('{name}', '{type_}')" for name, type_ in columns.items())
    run_sql(_BEGIN_ADOPTION.replace("<table>", table).replace("<comment>", comment).replace("<columns>", values))


_BEGIN_ADOPTION = """
DO $$
DECLARE
  there CONSTANT oid := to_regclass('public.<table>');
  wrong text;
BEGIN
  IF there IS NULL OR obj_description(there, 'pg_class') = '<comment>' THEN
    RETURN;
  END IF;
  SELECT CASE
    WHEN relkind <> 'r' OR relpersistence <> 'p' THEN 'it is no ordinary table'
    WHEN relowner <> (SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'oblivion')
      THEN format('it belongs to %s, who has to run this', relowner::regrole)
  END
  INTO wrong
  FROM pg_catalog.pg_class
  WHERE oid = there;
  SELECT concat_ws(
    ', ',
    wrong,
    'it lacks ' || string_agg(name, ', ' ORDER BY name) FILTER (WHERE attname IS NULL),
    string_agg(format('its %s is %s, not %s', name, format_type(atttypid, atttypmod), type), ', ' ORDER BY name)
      FILTER (WHERE attname IS NOT NULL)
  )
  INTO wrong
  FROM (VALUES <columns>) AS expected (name, type)
  LEFT JOIN pg_catalog.pg_attribute ON attrelid = there AND attname = name AND NOT attisdropped
  WHERE attname IS NULL OR format_type(atttypid, atttypmod) <> type;
  IF wrong <> '' THEN
    RAISE EXCEPTION 'public.<table> cannot be taken over: %', wrong
      USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Mend that, or rename the table, and run it again';
  END IF;
  INSERT INTO oblivion.adoption_log (kind, name, why)
  VALUES ('table', 'public.<table>', 'It was there before: a downgrade leaves it with its rows.');
  IF (SELECT relforcerowsecurity FROM pg_catalog.pg_class WHERE oid = there) THEN
    ALTER TABLE public.<table> NO FORCE ROW LEVEL SECURITY;
    INSERT INTO oblivion.adoption_log (kind, name, why)
    VALUES ('forced', 'public.<table>', 'Row level security no longer binds its owner, who has to see all rows.');
  END IF;
END
$$
"""


@heard
def fill_nulls(table: str, *reads: str, **columns: str) -> None:  # noqa: ARG001 - `prepare` hears what is read
    """Give each of `columns` its expression where it is NULL, unseen by triggers, and then let none be NULL.

    `reads` are the other tables that the expressions read. PostgreSQL scans the table once to see that none is NULL,
    unless a valid check tells, such as `<table>_prepared_check`.
    """
    nulls = " OR ".join(f'"{name}" IS NULL' for name in columns)
    assignments = ", ".join(f'"{name}" = coalesce("{name}", {value})' for name, value in columns.items())
    actions = ", ".join(f'ALTER "{name}" SET NOT NULL' for name in columns)
    sql = _FILL_NULLS.replace("<table>", table).replace("<actions>", actions)
    run_sql(sql.replace("<assignments>", assignments).replace("<nulls>", nulls))


_FILL_NULLS = """
DO $$
DECLARE
  hold text;
  release text;
  filled bigint;
BEGIN
  IF to_regclass('public.<table>') IS NULL THEN
    RETURN;
  END IF;
  BEGIN
    ALTER TABLE public.<table> <actions>;
  EXCEPTION
    WHEN not_null_violation THEN
      SELECT
        string_agg(format('DISABLE TRIGGER %I', tgname), ', '),
        string_agg(format(
          'ENABLE %s TRIGGER %I', CASE tgenabled WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' END, tgname
        ), ', ')
      INTO hold, release
      FROM pg_catalog.pg_trigger
      WHERE tgrelid = 'public.<table>'::regclass AND NOT tgisinternal AND tgenabled <> 'D';
      IF hold IS NOT NULL THEN
        EXECUTE 'ALTER TABLE public.<table> ' || hold;
      END IF;
      UPDATE public.<table> SET <assignments> WHERE <nulls>;
      GET DIAGNOSTICS filled = ROW_COUNT;
      IF release IS NOT NULL THEN
        EXECUTE 'ALTER TABLE public.<table> ' || release;
      END IF;
      ALTER TABLE public.<table> <actions>;
      INSERT INTO oblivion.adoption_log (kind, name, why)
      VALUES ('filled', 'public.<table>', format('%s rows had a NULL where none may be.', filled));
  END;
  ALTER TABLE public.<table> DROP CONSTRAINT IF EXISTS <table>_prepared_check;
END
$$
"""


@heard
def set_defaults(table: str, columns: Mapping[str, str]) -> None:
    """Give each of `columns` its default; their names are as SQL writes them."""
    actions = ",\n".join(f"  ALTER {name} SET DEFAULT {default}" for name, default in columns.items())
    run_sql(f"ALTER TABLE public.{table}\n{actions}")


@heard
def set_fillfactor(table: str, percent: int) -> None:
    """Leave room in each page of the table that is written from now on; `percent` of it are filled."""
    run_sql(f"ALTER TABLE public.{table} SET (fillfactor = {percent})")


@heard
def add_check(table: str, name: str, condition: str) -> None:
    """Add a check where the table has no valid constraint of that name.

    Where rows break it, it holds for new rows alone (NOT VALID): the log notes it, and `oblivion-schema verify` names
    the rows.
    """
    _add_rule(table, name, f"CHECK ({condition})")


@heard
def add_foreign_key(table: str, name: str, column: str, other: str, key: str) -> None:
    """Add a foreign key of `column` to `key` of `public.<other>`, as `add_check()` adds a check.

    A row goes with the row that it refers to (ON DELETE CASCADE).
    """
    _add_rule(table, name, f"FOREIGN KEY ({column}) REFERENCES public.{other} ({key}) ON DELETE CASCADE")


def _add_rule(table: str, name: str, rule: str) -> None:
    run_sql(_ADD_RULE.replace("<table>", table).replace("<name>", name).replace("<rule>", rule))


_ADD_RULE = """
DO $$
BEGIN
  IF EXISTS (
    SELECT FROM pg_catalog.pg_constraint
    WHERE conrelid = 'public.<table>'::regclass AND conname = '<name>' AND convalidated
  ) THEN
    RETURN;
  END IF;
  BEGIN
    ALTER TABLE public.<table> DROP CONSTRAINT IF EXISTS <name>, ADD CONSTRAINT <name> <rule>;
  EXCEPTION
    WHEN check_violation OR foreign_key_violation THEN
      ALTER TABLE public.<table> DROP CONSTRAINT IF EXISTS <name>, ADD CONSTRAINT <name> <rule> NOT VALID;
      INSERT INTO oblivion.adoption_log (kind, name, why)
      VALUES ('not valid', '<name> on public.<table>', 'Rows break it: it holds for new ones and for what changes.');
      RAISE WARNING 'public.<table> has rows that break <name>, which holds for new rows'
        USING HINT = 'oblivion-schema verify names them';
  END;
END
$$
"""


@heard
def drop_policy_as_made(table: str, name: str, *, reads_only: bool = False) -> None:
    """Drop a policy that the old scripts made, where it still lets everybody through: to all commands, or to SELECT."""
    made = "r true" if reads_only else "* true true"
    run_sql(_DROP_POLICY.replace("<table>", table).replace("<name>", name).replace("<made>", made))


_DROP_POLICY = """
DO $$
BEGIN
  IF EXISTS (
    SELECT FROM pg_catalog.pg_policy
    WHERE polrelid = to_regclass('public.<table>') AND polname = '<name>' AND polpermissive AND polroles = '{0}'
      AND concat_ws(' ', polcmd, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) = '<made>'
  ) THEN
    DROP POLICY "<name>" ON public.<table>;
  END IF;
END
$$
"""


@heard
def drop_index_as_made(table: str, name: str, columns: str) -> None:
    """Drop an index that the old scripts made, where it still is a plain one on `columns` of `public.<table>`."""
    sql = _DROP_INDEX.replace("<table>", table).replace("<name>", name)
    run_sql(sql.replace("<columns>", columns))


_DROP_INDEX = """
DO $$
BEGIN
  IF pg_get_indexdef(to_regclass('public.<name>')) LIKE 'CREATE INDEX % ON public.<table> USING btree (<columns>)' THEN
    DROP INDEX public.<name>;
  END IF;
END
$$
"""


@heard
def drop_index_unless(table: str, name: str, definition: str = "%") -> None:
    """Drop an index of a name of ours on `public.<table>` that PostgreSQL does not use, for its build was interrupted.

    So, too, one that is not as the pattern `definition` says.
    """
    is_other = f" OR pg_get_indexdef(indexrelid) NOT LIKE '{definition}'" if definition != "%" else ""
    sql = _DROP_INDEX_UNLESS.replace("<table>", table).replace("<name>", name)
    run_sql(sql.replace("<is other>", is_other))


_DROP_INDEX_UNLESS = """
DO $$
BEGIN
  IF EXISTS (
    SELECT FROM pg_catalog.pg_index
    WHERE indexrelid = to_regclass('public.<name>') AND indrelid = to_regclass('public.<table>')
      AND (NOT indisvalid<is other>)
  ) THEN
    DROP INDEX public.<name>;
  END IF;
END
$$
"""


@heard
def create_index(
    table: str, name: str, columns: str, *, unique: bool = False, method: str = "", where: str = ""
) -> None:
    """Build an index where there is none of that name; `columns` and the condition `where` are as SQL writes them."""
    run_sql(index_sql(table, f"IF NOT EXISTS {name}", columns, unique=unique, method=method, where=where))


def index_sql(table: str, name: str, columns: str, *, unique: bool = False, method: str = "", where: str = "") -> str:
    """The statement that builds an index; a condition makes it two lines."""
    create = f"CREATE {'UNIQUE ' * unique}INDEX {name}"
    on = f"ON public.{table} {f'USING {method} ' * bool(method)}({columns})"
    return f"{create}\n{on} WHERE {where}" if where else f"{create} {on}"


@heard
def drop_index(name: str) -> None:
    """Drop an index in schema public, which an earlier revision made or took over."""
    run_sql(f"DROP INDEX public.{name}")


@heard
def replace_view(file: Path) -> None:
    """Make the view of an .sql file, where one of that name may have columns of other types.

    Raises object_not_in_prerequisite_state where it has, and something reads it.
    """
    name, query = view_in(file)
    _, *comments = statements_of(file)
    run_sql(_REPLACE_VIEW.replace("<name>", name).replace("<query>", query))
    for comment in comments:
        run_sql(comment)


def view_in(file: Path) -> tuple[str, str]:
    """The name, without schema public, and the query of the view that an .sql file makes, with its reader's rights."""
    create, *_ = statements_of(file)
    head, _, query = create.partition(" WITH (security_invoker = true) AS\n")
    return head.removeprefix("CREATE VIEW public."), query


_REPLACE_VIEW = """
DO $do$
DECLARE
  definition CONSTANT text := $view$ VIEW public.<name> WITH (security_invoker = true) AS
<query>$view$;
  grants text;
BEGIN
  EXECUTE 'CREATE OR REPLACE' || definition;
EXCEPTION
  WHEN invalid_table_definition THEN
    SELECT string_agg(format(
      'GRANT %s ON public.<name> TO %I%s', privilege_type, rolname, CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END
    ), '; ')
    INTO grants
    FROM pg_catalog.pg_class, aclexplode(relacl)
    JOIN pg_catalog.pg_roles ON pg_roles.oid = grantee
    WHERE pg_class.oid = 'public.<name>'::regclass AND grantee <> relowner
      AND rolname NOT IN ('anon', 'authenticated', 'service_role');
    BEGIN
      DROP VIEW public.<name>;
    EXCEPTION
      WHEN dependent_objects_still_exist THEN
        RAISE EXCEPTION 'public.<name> has columns of other types than ours, and something reads it'
          USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Drop what reads it, and make that again after the upgrade';
    END;
    EXECUTE 'CREATE' || definition;
    IF grants IS NOT NULL THEN
      EXECUTE grants;
    END IF;
END
$do$
"""


@heard
def note_others(table: str, columns: Sequence[str], ours: Sequence[str]) -> None:
    """Note what is on a table that was there before and is not ours, so that `check` leaves it alone.

    `ours` are the names of our constraints, indexes, triggers, policies and publications. What is noted has the kind
    and the name that `oblivion_schema.catalog` gives it.
    """
    run_sql(_NOTE_OTHERS.replace("<others>", others_on(table, columns, ours)).replace("<table>", table))


def others_on(table: str, columns: Sequence[str], ours: Sequence[str]) -> str:
    """The query of what `note_others()` notes where nothing is noted yet: kind, name and definition."""
    sql = _OTHERS.replace("<table>", table)
    sql = sql.replace("<columns>", ", ".join(f"'{column}'" for column in columns))
    return sql.replace("<ours>", ", ".join(f"'{name}'" for name in ours))


_OTHERS = """\
  SELECT
    'column' AS kind,
    format('public.<table>.%I', attname) AS name,
    concat_ws(
      ' ', format_type(atttypid, atttypmod), CASE WHEN attnotnull AND NOT atthasdef THEN 'NOT NULL' END
    ) AS definition
  FROM pg_catalog.pg_attribute
  WHERE attrelid = 'public.<table>'::regclass AND attnum > 0 AND NOT attisdropped AND attname NOT IN (<columns>)
  UNION ALL
  SELECT
    CASE contype
      WHEN 'c' THEN 'check constraint' WHEN 'f' THEN 'foreign key' WHEN 'p' THEN 'primary key'
      WHEN 'u' THEN 'unique constraint' ELSE 'exclusion constraint'
    END,
    format('%I on public.<table>', conname),
    pg_get_constraintdef(oid)
  FROM pg_catalog.pg_constraint
  WHERE conrelid = 'public.<table>'::regclass AND contype IN ('c', 'f', 'p', 'u', 'x') AND conname NOT IN (<ours>)
  UNION ALL
  SELECT 'index', format('public.%I on public.<table>', relname), pg_get_indexdef(indexrelid)
  FROM pg_catalog.pg_index
  JOIN pg_catalog.pg_class ON pg_class.oid = indexrelid
  WHERE indrelid = 'public.<table>'::regclass AND relname NOT IN (<ours>)
    AND NOT EXISTS (SELECT FROM pg_catalog.pg_constraint WHERE conindid = indexrelid AND contype IN ('p', 'u', 'x'))
  UNION ALL
  SELECT 'trigger', format('%I on public.<table>', tgname), pg_get_triggerdef(oid)
  FROM pg_catalog.pg_trigger
  WHERE tgrelid = 'public.<table>'::regclass AND NOT tgisinternal AND tgname NOT IN (<ours>)
  UNION ALL
  SELECT 'rule', format('%I on public.<table>', rulename), pg_get_ruledef(oid)
  FROM pg_catalog.pg_rewrite
  WHERE ev_class = 'public.<table>'::regclass
  UNION ALL
  SELECT
    'policy',
    format('%I on public.<table>', polname),
    concat_ws(' ', polcmd, polroles::regrole[], pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))
  FROM pg_catalog.pg_policy
  WHERE polrelid = 'public.<table>'::regclass AND polname NOT IN (<ours>)
  UNION ALL
  SELECT 'storage parameter', format('%s on public.<table>', split_part(o, '=', 1)), o
  FROM pg_catalog.pg_class, unnest(reloptions) AS o
  WHERE oid = 'public.<table>'::regclass
  UNION ALL
  SELECT 'setting', 'replica identity on public.<table>', relreplident::text
  FROM pg_catalog.pg_class
  WHERE oid = 'public.<table>'::regclass AND relreplident <> 'd'
  UNION ALL
  SELECT 'publication', format('%I of public.<table>', pubname), NULL
  FROM pg_catalog.pg_publication_rel
  JOIN pg_catalog.pg_publication AS p ON p.oid = prpubid
  WHERE prrelid = 'public.<table>'::regclass AND NOT puballtables AND pubname NOT IN (<ours>)
  UNION ALL
  SELECT 'grant', format('%s on table public.<table> to %s', string_agg(privilege_type, ', '), grantee::regrole), NULL
  FROM pg_catalog.pg_class, aclexplode(relacl)
  WHERE oid = 'public.<table>'::regclass AND grantee NOT IN (0, relowner)
    AND grantee::regrole::text NOT IN ('anon', 'authenticated', 'service_role')
  GROUP BY grantee
"""
_NOTE_OTHERS = """
INSERT INTO oblivion.adoption_log (kind, name, why, was)
SELECT kind, name, 'Not ours: left as it is.', to_json(definition)
FROM (
<others>) AS other
WHERE EXISTS (SELECT FROM oblivion.adoption_log AS l WHERE l.kind = 'table' AND l.name = 'public.<table>')
  AND NOT EXISTS (SELECT FROM oblivion.adoption_log AS l WHERE l.kind = other.kind AND l.name = other.name)
ORDER BY kind, name
"""


def release_adopted(table: str, policies: Sequence[str]) -> None:
    """Give back a table that was there before, with its rows.

    In the open access mode it gets the policy of the old scripts for ours; in the other it stays closed.
    """
    drops = "\n".join(f"  DROP POLICY {policy} ON public.{table};" for policy in policies)
    run_sql(_RELEASE_ADOPTED.replace("<table>", table).replace("<drops>", drops))


_RELEASE_ADOPTED = """
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM oblivion.adoption_log WHERE kind = 'table' AND name = 'public.<table>') THEN
    RETURN;
  END IF;
<drops>
  IF oblivion.open_access() AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_policy
    WHERE polrelid = 'public.<table>'::regclass AND polname = 'Allow all operations on <table>'
  ) THEN
    CREATE POLICY "Allow all operations on <table>" ON public.<table> FOR ALL TO public USING (true) WITH CHECK (true);
  END IF;
  -- By which the next upgrade would take it for ours.
  COMMENT ON TABLE public.<table> IS NULL;
END
$$
"""


def drop_unless_adopted(table: str, *statements: str) -> None:
    """Run what drops a table of our own, and what belongs to it; what was there before stays as it is."""
    run_sql(_DROP_UNLESS_ADOPTED.replace("<table>", table).replace("<statements>", ";\n  ".join(statements)))


_DROP_UNLESS_ADOPTED = """
DO $$
BEGIN
  IF EXISTS (SELECT FROM oblivion.adoption_log WHERE kind = 'table' AND name = 'public.<table>') THEN
    RETURN;
  END IF;
  <statements>;
END
$$
"""
