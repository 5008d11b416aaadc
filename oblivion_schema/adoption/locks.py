"""How long an upgrade locks the tables of a database, who holds one of them now, and what is done beside the locks."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from oblivion_schema.adoption.preparation import BIG, LEFT_TO_THE_UPGRADE, dropped_indexes
from oblivion_schema.errors import held_relations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from sqlalchemy import Row

    from oblivion_schema.adoption.report import Inspection
    from oblivion_schema.adoption.snapshot import Snapshot
    from oblivion_schema.operations import Request

# Seconds for a row (benchmarks/adoption.py).
SCAN: Final = 0.1e-6
INDEX: Final = 1.0e-6
HASH_INDEX: Final = 2.4e-6
_LONG: Final = 0.5
"""Seconds that are worth a word."""
_SHOWN: Final = 0.05
"""Seconds that are printed as 0.1 at least."""

AT_ONCE: Final = 1 << 20
"""Bytes of a table up to which these files of revisions fill in at once what it lacks; it takes no time."""
_LEFT: Final = {
    "open_ledger.sql": {"user_accounts": "the ledger"},
    "fill_rollups.sql": {"token_usage": "the roll-ups of usage", "call_sessions": "the roll-ups of calls"},
}


def inspect_work_beside(there: Snapshot, found: Inspection, requests: Sequence[Request]) -> None:
    """Tell what is done before and after the upgrade, while clients go on."""
    for name in _built_before(there, requests):
        found.do("index", name)
    left = [
        what
        for request in requests
        if request.function == "run_file"
        for table, what in _LEFT.get(request.arguments["file"].name, {}).items()
        if table in there.relations and there.relations[table].bytes > AT_ONCE
    ]
    if left:
        found.do("backfill", "backfill", f"fill in {', '.join(left)} after it, while clients go on")


def _built_before(there: Snapshot, requests: Sequence[Request]) -> list[str]:
    """The indexes that an upgrade which connects by itself builds before it takes its locks."""
    if there.facts.has_version_table or all(row.bytes <= BIG for row in there.relations.values()):
        return []
    missing = (asked.arguments for asked in requests if asked.function == "create_index")
    dropped = dropped_indexes(requests)
    return [
        index["name"]
        for index in missing
        if index["table"] in there.relations and index["table"] not in LEFT_TO_THE_UPGRADE
        if index["name"] not in dropped and index["name"] not in there.relations[index["table"]].indexes
    ]


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
    for part, table, more in _seconds(there, requests, filled):
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


def _seconds(there: Snapshot, requests: Sequence[Request], filled: Collection[str]) -> Iterator[tuple[str, str, float]]:
    """What takes time under the locks, of which table, and the seconds."""
    without = dropped_indexes(requests).union(_built_before(there, requests))
    for request in requests:
        arguments = request.arguments
        row = there.relations.get(str(arguments.get("table")))
        match request.function:
            case "fill_nulls" if row is not None and _is_scanned(row, arguments["columns"]):
                # A second scan finds the rows to fill.
                yield "NULLs", row.name, row.rows * SCAN * (1 + (f"public.{row.name}" in filled))
            case "add_check" | "add_foreign_key" if row is not None and not _is_valid(row, arguments["name"]):
                yield "constraints", row.name, row.rows * SCAN
            case "create_index" if row is not None and arguments["name"] not in without:
                if arguments["name"] not in row.indexes or arguments["name"] in row.constraints:
                    # A condition leaves most rows out.
                    a_row = SCAN if arguments["where"] else HASH_INDEX if arguments["method"] else INDEX
                    yield "indexes", row.name, row.rows * a_row


def _is_scanned(row: Row[Any], columns: Collection[str]) -> bool:
    is_nullable = any(row.columns.get(name, {}).get("nullable") for name in columns)
    return is_nullable and not _is_valid(row, f"{row.name}_prepared_check")


def _is_valid(row: Row[Any], constraint: str) -> bool:
    return bool(row.constraints.get(constraint, {}).get("valid"))
