"""Triggers of somebody else on our tables: they run inside the token engine, with its owner's rights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from oblivion_schema.declare.ddl import declared
from oblivion_schema.tables.base import metadata

if TYPE_CHECKING:
    from sqlalchemy import Connection

_SQL: Final = (Path(__file__).with_suffix("") / "foreign.sql").read_text(encoding="utf-8")


@dataclass(frozen=True)
class ForeignTrigger:
    """A trigger on one of our tables that is not ours; names are quoted as SQL needs it.

    `has_path`: whether the function sets a search_path of its own.
    """

    name: str
    on_table: str
    function: str
    for_each_row: bool
    has_path: bool

    def __str__(self) -> str:
        return f"trigger {self.name} on {self.on_table}"

    @property
    def says(self) -> str:
        """What it means for the engine, and what to do about it."""
        calls = f"it calls {self.function}, also when the token engine writes there"
        if self.has_path:
            return calls
        # The session's own search_path would let whoever may set it put tables of his own in the function's way.
        return (
            f"{calls}, which has no search_path: if a name in that function has no schema, calls fail:"
            f" ALTER FUNCTION {self.function} SET search_path = public"
        )


def foreign_triggers(connection: Connection) -> list[ForeignTrigger]:
    """The enabled triggers of somebody else on our tables, by table and name."""
    tables = [f"{table.schema or 'public'}.{table.name}" for table in metadata.tables.values()]
    ours = [
        f"{item.name} on {table.schema or 'public'}.{table.name}"
        for table in metadata.tables.values()
        for item in declared(table)
        if item.kind == "trigger"
    ]
    found = connection.execute(text(_SQL), {"tables": tables, "ours": ours})
    return [ForeignTrigger(**row) for row in found.mappings()]
