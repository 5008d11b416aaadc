"""`oblivion-schema prepare`: the long part of taking over a big hand-made database, done before, beside its clients.

An upgrade is one transaction and holds its locks to the end: it scans each table for NULLs and builds an index while
everybody waits. Here each statement is a transaction of its own. The upgrade then finds a valid check, which tells that
there is no NULL, and the index. All of it can be interrupted and repeated, and none of it is needed.
An upgrade that connects by itself builds the indexes of big tables in the same way, before it takes its locks.

The revisions say what is filled and which indexes are built. `user_presence` is left to the upgrade: it has one row for
each host, and a NULL tells which of a host's rows is the newest.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import text

from oblivion_schema.operations.adoption import index_sql

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection

    from oblivion_schema.operations import Request

LEFT_TO_THE_UPGRADE: Final = ("user_presence",)
"""Tables that are not prepared."""
_PAGES: Final = 64
"""Pages of a table, some thousand rows, that are filled in one transaction: writers wait for about 0.1 s."""

BIG: Final = 8 << 20
"""Bytes of a table whose indexes an upgrade builds before it: under its lock that would take 0.1 s or more."""
# Nobody waits for the rest, so a role's own timeout need not end it; steps that others wait for set their own.
_SETTINGS: Final = ("SET lock_timeout = 0", "SET statement_timeout = 0")
_SQL: Final = Path(__file__).with_suffix("")


def has_big_tables(connection: Connection) -> bool:
    """Whether there are tables of that size which no revision took over."""
    return bool(connection.scalar(text(_HAS_BIG_TABLES), {"big": BIG}))


_HAS_BIG_TABLES: Final = """
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_class
  WHERE oid IN (to_regclass('public.call_sessions'), to_regclass('public.token_usage')) AND relkind = 'r'
    AND to_regclass('oblivion.alembic_version') IS NULL AND pg_relation_size(oid) > :big
)
"""


class Step(NamedTuple):
    """One step: a block, which says in the setting oblivion.prepared what it did, or a query of statements to run."""

    sql: str
    is_query: bool = False


def steps(requests: Sequence[Request], lock_timeout: str) -> list[Step]:
    """What prepares the upgrade that asks for `requests`, in its order; each does nothing where it need not."""
    comments = {
        str(request.arguments["table"]): str(request.arguments["comment"])
        for request in requests
        if request.function == "begin_adoption" and request.arguments["table"] not in LEFT_TO_THE_UPGRADE
    }
    dropped = dropped_indexes(requests)
    found = []
    for request in requests:
        table = request.arguments.get("table")
        if table not in comments:
            continue
        if request.function == "fill_nulls":
            blocks = _blocks(comments[table], lock_timeout, **request.arguments)
            found += [Step(block) for block in blocks]
        elif request.function == "create_index" and request.arguments["name"] not in dropped:
            found.append(Step(_index(comments[table], request.arguments), is_query=True))
    return found


def dropped_indexes(requests: Iterable[Request]) -> set[str]:
    """The indexes that one of the revisions drops again."""
    return {str(request.arguments["name"]) for request in requests if request.function == "drop_index"}


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


def _index(comment: str, index: Mapping[str, Any]) -> str:
    create = index_sql(**{**index, "name": f"CONCURRENTLY {index['name']}"}).replace("\n", " ")
    values = {"table": index["table"], "comment": _escaped(comment), "name": index["name"], "create": _escaped(create)}
    return _filled_in("build_index", values)


def _blocks(
    comment: str, lock_timeout: str, table: str, reads: Sequence[str], columns: Mapping[str, str]
) -> Iterator[str]:
    values = {
        "there": (_SQL / "there.sql").read_text(encoding="utf-8").rstrip("\n"),
        "table": table,
        "comment": _escaped(comment),
        "columns": ", ".join(f"'{name}'" for name in columns),
        "read": "".join(f"\n      AND to_regclass('public.{name}') IS NOT NULL" for name in reads),
        "pages": str(_PAGES),
        "lock_timeout": lock_timeout,
        "nulls": " OR ".join(f'"{name}" IS NULL' for name in columns),
        "no_nulls": " AND ".join(f'"{name}" IS NOT NULL' for name in columns),
        "assignments": ", ".join(f'"{name}" = coalesce("{name}", {value})' for name, value in columns.items()),
    }
    # A client's update of a row with a NULL would break the check: most are filled before it is there.
    for block in ("fill", "add_check", "fill", "validate"):
        yield _filled_in(block, values)


def _filled_in(file: str, values: Mapping[str, str]) -> str:
    """The statement of an .sql file, with `values` for their names in angle brackets."""
    sql = (_SQL / f"{file}.sql").read_text(encoding="utf-8")
    for name, value in values.items():
        sql = sql.replace(f"<{name}>", value)
    return sql.strip()


def _escaped(sql: str) -> str:
    return sql.replace("'", "''")
