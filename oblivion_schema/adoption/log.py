"""Adoption: what upgrades found in tables that people had made by hand, and what became of it; no row is ever lost.

A table that was there before is noted, and a downgrade leaves it. Whatever is on such a table and is not ours stays,
and is noted by the kind and name that `alembic check` gives it, which lists it from then on rather than failing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select, text

from oblivion_schema.tables.adoption_log import adoption_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection, Row


def noted(connection: Connection) -> list[Row[Any]]:
    """The entries of the log; none where there is no log, or none that the role may read."""
    if not connection.scalar(text("SELECT has_table_privilege(to_regclass('oblivion.adoption_log'), 'SELECT')")):
        return []
    return list(connection.execute(select(adoption_log).order_by(adoption_log.c.id)))


_DONE: Final = ("table", "renamed", "filled", "row", "not valid", "forced")


def not_ours(entries: Sequence[Row[Any]]) -> list[str]:
    """What the entries name that was left as it is."""
    return [f"{entry.kind} {entry.name}" for entry in entries if entry.kind not in _DONE]


def report(entries: Sequence[Row[Any]]) -> Iterator[str]:
    """What the entries say, for people."""
    names: dict[str, list[str]] = {kind: [entry.name for entry in entries if entry.kind == kind] for kind in _DONE}
    if names["table"]:
        yield f"Taken over: {', '.join(names['table'])}."
    for entry in entries:
        if entry.kind in {"renamed", "filled", "not valid", "forced"}:
            yield f"{entry.name}: {entry.why}"
    if names["row"]:
        yield (
            f"{names['row'][0]}: {len(names['row'])} rows of hosts that have a newer one were moved to"
            " oblivion.adoption_log."
        )
    if others := not_ours(entries):
        yield f"Not ours, left alone: {', '.join(others)}."
