"""How long an upgrade locks the tables of a database, and who holds one of them now."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from oblivion_schema.adoption.preparation import LEFT_TO_THE_UPGRADE, dropped_indexes
from oblivion_schema.errors import held_relations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from sqlalchemy import Row

    from oblivion_schema.adoption.report import Inspection
    from oblivion_schema.adoption.snapshot import Snapshot
    from oblivion_schema.operations import Request

# Seconds for a row (benchmarks/adoption.py).
SCAN: Final = 0.1e-6
INDEX: Final = 1.0e-6
LEDGER: Final = 3.3e-6
ROLLUP: Final = 1.0e-6
_LONG: Final = 0.5
"""Seconds that are worth a word."""
_SHOWN: Final = 0.05
"""Seconds that are printed as 0.1 at least."""

# The files of revisions that write a row for each row that is there, or a sum of them.
_READ_WHOLE: Final = {
    "public.token_ledger.sql": ("ledger", LEDGER, ("user_accounts",)),
    "fill_rollups.sql": ("roll-ups", ROLLUP, ("token_usage", "call_sessions")),
}


def inspect_locks(there: Snapshot, found: Inspection, requests: Sequence[Request], adopted: Collection[str]) -> None:
    """Tell who holds one of the tables and views, and how long they will be locked; `adopted` are those taken over."""
    for relation, holders in held_relations(there.connection):
        if relation.removeprefix("public.") in there.relations:
            found.warn(
                "lock", relation, f"{relation} is held by {holders}: the upgrade waits for it, up to its lock timeout"
            )
    filled = {finding.name for finding in found.will if finding.kind == "filled"}
    seconds: dict[str, float] = defaultdict(float)
    prepared = 0.0
    for part, table, more in _seconds(there.relations, requests, filled):
        seconds[part] += more
        if part in _PREPARED and table in adopted and table not in LEFT_TO_THE_UPGRADE:
            prepared += more
    total = sum(seconds.values())
    if total >= _LONG:
        parts = ", ".join(f"{part} {some:.1f} s" for part, some in seconds.items() if some >= _SHOWN)
        first = f": run oblivion-schema prepare first, which does {prepared:.1f} s of that while clients go on"
        says = f"the upgrade locks these tables for about {total:.1f} s ({parts}){first * (prepared >= _LONG)}"
        found.warn("time", "lock", says)


_PREPARED: Final = ("NULLs", "indexes")


def _seconds(
    relations: Mapping[str, Row[Any]], requests: Sequence[Request], filled: Collection[str]
) -> Iterator[tuple[str, str, float]]:
    """What takes time, of which table, and the seconds."""
    dropped = dropped_indexes(requests)
    for request in requests:
        arguments = request.arguments
        row = relations.get(str(arguments.get("table")))
        match request.function:
            case "fill_nulls" if row is not None and _is_scanned(row, arguments["columns"]):
                # A second scan finds the rows to fill.
                yield "NULLs", row.name, row.rows * SCAN * (1 + (f"public.{row.name}" in filled))
            case "add_check" | "add_foreign_key" if row is not None and not _is_valid(row, arguments["name"]):
                yield "constraints", row.name, row.rows * SCAN
            case "create_index" if row is not None and arguments["name"] not in dropped:
                if arguments["name"] not in row.indexes or arguments["name"] in row.constraints:
                    # A condition leaves most rows out.
                    yield "indexes", row.name, row.rows * (SCAN if arguments["where"] else INDEX)
            case "run_file" if read := _READ_WHOLE.get(arguments["file"].name):
                part, cost, tables = read
                yield from ((part, table, relations[table].rows * cost) for table in tables if table in relations)


def _is_scanned(row: Row[Any], columns: Collection[str]) -> bool:
    is_nullable = any(row.columns.get(name, {}).get("nullable") for name in columns)
    return is_nullable and not _is_valid(row, f"{row.name}_prepared_check")


def _is_valid(row: Row[Any], constraint: str) -> bool:
    return bool(row.constraints.get(constraint, {}).get("valid"))
