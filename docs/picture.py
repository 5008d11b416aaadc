"""The picture of the schema: tables with their keys, and what relates them, as a Mermaid diagram, which GitHub draws.

paracelsus draws tables and foreign keys. It knows neither a view, nor a column that names a row without a foreign key;
these lines are added here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from paracelsus.transformers.mermaid import Mermaid
from sqlalchemy import Column, ForeignKey, MetaData, Table
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.types import UserDefinedType

from oblivion_schema import metadata
from oblivion_schema.declare.ddl import read_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DIALECT: Final = PGDialect()  # type: ignore[no-untyped-call] # SQLAlchemy gives its __init__ no types

NAMES: Final = {
    "call_sessions.user_id": "user_accounts",
    "oblivion.billing_incidents.session_id": "call_sessions",
    "oblivion.call_meters.usage_id": "token_usage",
    "oblivion.call_segments.usage_id": "token_usage",
    "token_ledger.session_id": "call_sessions",
    "token_ledger.user_id": "user_accounts",
    "token_usage.session_id": "call_sessions",
}
"""Columns that name a row of another table without a foreign key: that row may be gone, or never have been."""


class PostgresType(UserDefinedType[Any]):
    """A type that prints as PostgreSQL's name, not as SQLAlchemy's generic one: paracelsus prints `str()` of it."""

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: object) -> str:
        """The name."""
        return self.name


def type_name(column: Column[Any]) -> str:
    """The column's type, as PostgreSQL spells it."""
    return column.type.compile(DIALECT).lower().replace("timestamp with time zone", "timestamptz")


def reads(view: Table[Any]) -> list[Table[Any]]:
    """The tables that a view reads."""
    return sorted(read_by(view), key=lambda table: table.fullname)


def public_schema() -> list[Table[Any]]:
    """All that clients see: the tables and views of schema public."""
    return [relation for relation in metadata.tables.values() if relation.schema is None]


def related_tables() -> set[Table[Any]]:
    """The tables of both schemas that a line relates to another."""
    related = set()
    for table in (relation for relation in metadata.tables.values() if not relation.is_view):
        others = {key.column.table for key in table.foreign_keys}
        others |= {metadata.tables[NAMES[name]] for name in map(_full_name, table.c) if name in NAMES}
        related |= {table, *others} if others else set()
    return related


def diagram(relations: Iterable[Table[Any]]) -> str:
    """A Mermaid diagram of these tables with their keys, of these views, and of all lines between them."""
    shown = sorted(relations, key=lambda relation: relation.name)
    drawn = MetaData()
    for relation in shown:
        Table(relation.name, drawn, *_drawn_columns(relation, shown))
    text = str(Mermaid(drawn, "preserve-order"))
    for line in (line for relation in shown for line in _lines(relation, shown)):
        text += f"  {line}\n"
    # paracelsus 0.15 takes each column of a composite key for unique by itself: a call has many segments, not one.
    for column in (column for table in drawn.tables.values() for column in table.c if column.foreign_keys):
        if not _is_unique(column):
            text = text.replace(
                f"o| {column.table.name} : {column.name}\n", f"o{{ {column.table.name} : {column.name}\n"
            )
    # An entity without columns is a plain box, a view.
    return re.sub(r" \{\n  \}\n\n?", "\n", text)


def _drawn_columns(relation: Table[Any], shown: list[Table[Any]]) -> Iterator[Column[Any]]:
    """Keys, and columns that name a row of another table; of a view none."""
    for column in () if relation.is_view else relation.c:
        keys = [
            ForeignKey(f"{key.column.table.name}.{key.column.name}")
            for key in column.foreign_keys
            if key.column.table in shown
        ]
        unique = _is_unique(column)
        if column.primary_key or column.foreign_keys or unique or _full_name(column) in NAMES:
            alone = unique and not column.primary_key
            kind = PostgresType(type_name(column))
            # Nullability is said in the reference; here it would be a word in a column of its own.
            yield Column(column.name, kind, *keys, primary_key=column.primary_key, unique=alone or None, nullable=False)


def _lines(relation: Table[Any], shown: list[Table[Any]]) -> Iterator[str]:
    for column in relation.c:
        named = NAMES.get(_full_name(column))
        if named and metadata.tables[named] in shown:
            many = "o|" if _is_unique(column) else "o{"
            yield f"{metadata.tables[named].name} |o..{many} {relation.name} : {column.name}"
    if relation.is_view:
        for table in reads(relation):
            if table in shown:
                yield f"{table.name} }}o..o| {relation.name} : reads"


def _full_name(column: Column[Any]) -> str:
    return f"{column.table.fullname}.{column.name}"


def _is_unique(column: Column[Any]) -> bool:
    """Whether a row is known by this column alone."""
    table = column.table
    keys = [table.primary_key.columns, *(index.columns for index in table.indexes if index.unique)]
    return bool(column.unique) or any(key.keys() == [column.key] for key in keys)
