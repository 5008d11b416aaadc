"""What a database holds before an upgrade, read once; what becomes of it is decided elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import literal, select, text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.adoption.log import noted
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.errors import primary_message
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import Connection, Row

    from oblivion_schema.adoption.report import Inspection

_SQL: Final = Path(__file__).with_suffix("")


@dataclass(frozen=True)
class Snapshot:
    """The tables and views that an upgrade is about, by their names, and a connection to count rows on."""

    connection: Connection
    facts: Row[Any]
    relations: Mapping[str, Row[Any]]
    taken_over: frozenset[str]
    """The tables that an earlier upgrade took over."""

    def query(self, sql: str) -> Sequence[Row[Any]]:
        """The rows of `sql`; an error leaves the transaction as it was. Raises sqlalchemy.exc.DBAPIError."""
        with self.connection.begin_nested():
            return self.connection.exec_driver_sql(sql, execution_options={"no_parameters": True}).all()

    def counts(self, found: Inspection, table: str, sql: str) -> Sequence[Row[Any]]:
        """The rows of `sql`, which counts rows of `table`; none, and a warning, where PostgreSQL refuses it."""
        try:
            return self.query(sql)
        except DBAPIError as error:
            found.warn("rows", table, f"some rows of {table} are not counted: {primary_message(error)}")
            return []

    def reads_alike(self, *expressions: str, table: str = "") -> bool:
        """Whether PostgreSQL reads expressions on the columns of `table` alike."""
        if len(set(expressions)) == 1:
            return True
        rows = f" FROM {table}" * bool(table)
        try:
            plans = [self.query(f"EXPLAIN (VERBOSE, COSTS OFF) SELECT {sql}{rows}") for sql in expressions]
        except DBAPIError:
            return False
        return all(plan == plans[0] for plan in plans)

    def is_like(self, value: str, pattern: str) -> bool:
        """Whether `value` matches a pattern of LIKE, as PostgreSQL reads it."""
        return bool(self.connection.scalar(select(literal(value).like(pattern))))


def read(connection: Connection, facts: Row[Any], names: Collection[str]) -> Snapshot:
    """What there is in schema public under `names`."""
    relations = {row.name: row for row in rows(connection, "relations", names=sorted(names))}
    tables = {entry.name.removeprefix("public.") for entry in noted(connection) if entry.kind == "table"}
    return Snapshot(connection, facts, relations, frozenset(tables))


def read_facts(connection: Connection) -> Row[Any]:
    """What the server and the role allow."""
    return rows(connection, "facts", roles=list(API_ROLES))[0]


def read_versions(connection: Connection) -> list[str]:
    """The revisions that the database is at."""
    return list(connection.scalars(text(f"SELECT version_num FROM {PRIVATE_SCHEMA}.alembic_version")))


def rows(connection: Connection, file: str, **parameters: list[str]) -> Sequence[Row[Any]]:
    """The rows of an .sql file of this folder."""
    sql = (_SQL / f"{file}.sql").read_text(encoding="utf-8").replace("::", r"\:\:")
    return connection.execute(text(sql), parameters).all()
