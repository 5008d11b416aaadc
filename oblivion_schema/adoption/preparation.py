"""`oblivion-schema prepare`: the long part of taking over a big hand-made database, done before, beside its clients.

An upgrade is one transaction, which holds its locks to its end: it would scan each table for NULLs, and build an index,
while everybody waits. Here each statement is a transaction of its own. A valid check then tells the upgrade that there
is no NULL, and the index is there. All of it can be interrupted and repeated, and none of it is needed.

What is filled, and which indexes are made, the revisions say. Not user_presence: it has a row for each host, and which
of a host's rows is the newest is seen by what is NULL.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

from oblivion_schema.operations import unindented

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from oblivion_schema.operations import Request

_PAGES: Final = 64
"""Pages of a table, some thousand rows, that are filled in one transaction: writers wait for about 0.1 s."""
_LEFT_TO_THE_UPGRADE: Final = ("user_presence",)


# Of what nobody waits for, a role's own timeout need not make an end; the steps that others wait for have theirs.
_SETTINGS: Final = ("SET lock_timeout = 0", "SET statement_timeout = 0")


class Step(NamedTuple):
    """One step: a block, which says in the setting oblivion.prepared what it did, or a query of statements to run."""

    sql: str
    is_query: bool = False


def steps(requests: Sequence[Request], lock_timeout: str) -> list[Step]:
    """What prepares the upgrade that asks for `requests`, in its order; each does nothing where it need not."""
    comments = {
        str(request.arguments["table"]): str(request.arguments["comment"])
        for request in requests
        if request.function == "begin_adoption" and request.arguments["table"] not in _LEFT_TO_THE_UPGRADE
    }
    ran = [unindented(request.arguments["sql"]) for request in requests if request.function == "run_sql"]
    gone = {dropped[1] for sql in ran if (dropped := DROPS_INDEX.match(sql))}
    found = []
    for request in requests:
        table = str(request.arguments.get("table", ""))
        if request.function == "fill_nulls" and table in comments:
            blocks = _blocks(table, comments[table], request.arguments["columns"])
            found += [Step(block.replace("<lock_timeout>", lock_timeout)) for block in blocks]
        elif request.function == "run_sql":
            index = _INDEX.match(unindented(request.arguments["sql"]))
            if index and index["table"] in comments and index["name"] not in gone:
                found.append(Step(_index(comments[index["table"]], index), is_query=True))
    return found


def script(found: Iterable[Step]) -> Iterator[str]:
    """The steps for psql, which has to run each of them as a transaction of its own."""
    yield "-- For psql -v ON_ERROR_STOP=1 -f, without -1: each statement is a transaction of its own."
    yield from (f"{setting};" for setting in _SETTINGS)
    for step in found:
        yield f"{step.sql} \\gexec" if step.is_query else f"{step.sql};"


def run(connection: Connection, found: Iterable[Step]) -> Iterator[str]:
    """Do the steps on a connection in autocommit, and tell of each that did anything."""
    for setting in _SETTINGS:
        connection.exec_driver_sql(setting)
    for step in found:
        if step.is_query:
            for statement in connection.execute(text(step.sql.replace(":", r"\:"))).scalars().all():
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
                yield statement
        else:
            connection.exec_driver_sql(step.sql, execution_options={"no_parameters": True})
            if said := connection.scalar(text("SELECT current_setting('oblivion.prepared', true)")):
                yield said


DROPS_INDEX: Final = re.compile(r"DROP INDEX public\.(\w+)$")
"""A statement by which a later revision drops an index that an earlier one makes."""

_INDEX: Final = re.compile(
    r"CREATE (?P<unique>UNIQUE )?INDEX IF NOT EXISTS (?P<name>\w+)\s+ON public\.(?P<table>\w+)\s+(?P<rest>.+)",
    re.DOTALL,
)


def _index(comment: str, index: re.Match[str]) -> str:
    rest = " ".join(index["rest"].split()).replace("'", "''")
    create = f"CREATE {index['unique'] or ''}INDEX CONCURRENTLY {index['name']} ON public.{index['table']} {rest}"
    sql = _INDEX_STATEMENTS.replace("<table>", index["table"]).replace("<comment>", comment.replace("'", "''"))
    return sql.replace("<name>", index["name"]).replace("<create>", create).strip()


# What an interrupted build leaves is there, and no index yet.
_INDEX_STATEMENTS: Final = """
SELECT statement
FROM (
  SELECT 1 AS place, 'DROP INDEX CONCURRENTLY public.<name>' AS statement
  WHERE EXISTS (SELECT FROM pg_catalog.pg_index WHERE indexrelid = to_regclass('public.<name>') AND NOT indisvalid)
  UNION ALL
  SELECT 2, '<create>'
  WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_index WHERE indexrelid = to_regclass('public.<name>') AND indisvalid)
) AS statements
WHERE to_regclass('public.<table>') IS NOT NULL
  AND obj_description(to_regclass('public.<table>'), 'pg_class') IS DISTINCT FROM '<comment>'
ORDER BY place
"""


def _blocks(table: str, comment: str, columns: Mapping[str, str]) -> Iterator[str]:
    nulls = " OR ".join(f'"{name}" IS NULL' for name in columns)
    no_nulls = " AND ".join(f'"{name}" IS NOT NULL' for name in columns)
    assignments = ", ".join(f'"{name}" = coalesce("{name}", {value})' for name, value in columns.items())
    read = sorted({name for value in columns.values() for name in re.findall(r"\bpublic\.\w+", value)})
    values = {
        "table": table,
        "comment": comment.replace("'", "''"),
        "columns": ", ".join(f"'{name}'" for name in columns),
        "read": "".join(f"\n      AND to_regclass('{name}') IS NOT NULL" for name in read),
        "pages": str(_PAGES),
        "nulls": nulls,
        "no_nulls": no_nulls,
        "assignments": assignments,
    }
    # A client's update of a row with a NULL would break the check: most are filled before it is there.
    for block in (_FILL, _ADD_CHECK, _FILL, _VALIDATE):
        sql = block.replace("<there>", _THERE.strip("\n"))
        for name, value in values.items():
            sql = sql.replace(f"<{name}>", value)
        yield sql.strip()


# A table that was made by hand, the owner of which sees all of its rows, and that is not prepared yet.
_THERE: Final = """
  there CONSTANT oid := (
    SELECT c.oid
    FROM pg_catalog.pg_class AS c
    WHERE c.oid = to_regclass('public.<table>') AND relkind = 'r' AND NOT relforcerowsecurity
      AND obj_description(c.oid, 'pg_class') IS DISTINCT FROM '<comment>'<read>
      AND EXISTS (
        SELECT FROM pg_catalog.pg_attribute WHERE attrelid = c.oid AND attname IN (<columns>) AND NOT attnotnull
      )
      AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint
        WHERE conrelid = c.oid AND conname = '<table>_prepared_check' AND convalidated
      )
  );
"""

# Pages by pages: each row is looked at once. Triggers, which would stamp the rows, are off in a transaction that fills
# some; that keeps writers waiting, not readers.
_FILL: Final = """
DO $$
DECLARE
<there>
  first_page tid;
  next_page tid;
  found boolean;
  hold text;
  release text;
  more bigint;
  filled bigint := 0;
BEGIN
  PERFORM set_config('oblivion.prepared', '', false);
  IF there IS NULL THEN
    RETURN;
  END IF;
  FOR page IN 0 .. (pg_relation_size(there) / current_setting('block_size')::integer)::integer BY <pages> LOOP
    first_page := format('(%s,0)', page);
    next_page := format('(%s,0)', page + <pages>);
    found := EXISTS (SELECT FROM public.<table> WHERE ctid >= first_page AND ctid < next_page AND (<nulls>));
    COMMIT;
    CONTINUE WHEN NOT found;
    PERFORM set_config('lock_timeout', '<lock_timeout>', true);
    LOCK TABLE public.<table> IN SHARE ROW EXCLUSIVE MODE;
    SELECT
      string_agg(format('DISABLE TRIGGER %I', tgname), ', '),
      string_agg(format(
        'ENABLE %s TRIGGER %I', CASE tgenabled WHEN 'A' THEN 'ALWAYS' WHEN 'R' THEN 'REPLICA' END, tgname
      ), ', ')
    INTO hold, release
    FROM pg_catalog.pg_trigger
    WHERE tgrelid = there AND NOT tgisinternal AND tgenabled <> 'D';
    IF hold IS NOT NULL THEN
      EXECUTE 'ALTER TABLE public.<table> ' || hold;
    END IF;
    UPDATE public.<table> SET <assignments>
    WHERE ctid >= first_page AND ctid < next_page AND (<nulls>);
    GET DIAGNOSTICS more = ROW_COUNT;
    filled := filled + more;
    IF release IS NOT NULL THEN
      EXECUTE 'ALTER TABLE public.<table> ' || release;
    END IF;
    COMMIT;
  END LOOP;
  IF filled > 0 THEN
    PERFORM set_config('oblivion.prepared', format('public.<table>: filled the NULLs of %s rows', filled), false);
    RAISE NOTICE '%', current_setting('oblivion.prepared');
  END IF;
END
$$
"""

_ADD_CHECK: Final = """
DO $$
DECLARE
<there>
BEGIN
  PERFORM set_config('oblivion.prepared', '', false);
  IF there IS NULL OR EXISTS (
    SELECT FROM pg_catalog.pg_constraint WHERE conrelid = there AND conname = '<table>_prepared_check'
  ) THEN
    RETURN;
  END IF;
  PERFORM set_config('lock_timeout', '<lock_timeout>', true);
  ALTER TABLE public.<table> ADD CONSTRAINT <table>_prepared_check CHECK (<no_nulls>) NOT VALID;
  PERFORM set_config('oblivion.prepared', 'public.<table>: no new row may hold a NULL in these columns', false);
  RAISE NOTICE '%', current_setting('oblivion.prepared');
END
$$
"""

_VALIDATE: Final = """
DO $$
DECLARE
<there>
BEGIN
  PERFORM set_config('oblivion.prepared', '', false);
  IF there IS NULL THEN
    RETURN;
  END IF;
  PERFORM set_config('lock_timeout', '<lock_timeout>', true);
  ALTER TABLE public.<table> VALIDATE CONSTRAINT <table>_prepared_check;
  PERFORM set_config('oblivion.prepared', 'public.<table>: checked that no row holds one', false);
  RAISE NOTICE '%', current_setting('oblivion.prepared');
END
$$
"""
