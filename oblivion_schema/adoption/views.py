"""What becomes of a view that people made by hand under a name of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError

from oblivion_schema.operations.adoption import view_in

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import Row

    from oblivion_schema.adoption.report import Inspection
    from oblivion_schema.adoption.snapshot import Snapshot


def inspect_view(there: Snapshot, found: Inspection, file: Path) -> None:
    """Tell what becomes of the view whose name the view of an .sql file has, where there is one."""
    name, query = view_in(file)
    row = there.relations.get(name)
    on = f"public.{name}"
    if row is None:
        return
    if not row.is_view:
        found.stop("view", on, f"{on} is no view, and ours has that name: rename it")
    elif not row.may_alter:
        found.stop("view", on, f"view {on} belongs to {row.owner}, who has to run this")
    elif not _has_other_columns(there, row, query):
        found.do("replace view", on)
        _warn_readers(found, row, on)
    elif row.readers:
        found.stop(
            "view",
            on,
            f"{', '.join(row.readers)} reads view {on}, whose columns have other types than ours: drop it, and create"
            " it again after the upgrade",
        )
    else:
        found.do("remade", on, f"drop view {on}, whose columns have other types than ours, and create it again")
        _warn_readers(found, row, on)


def _has_other_columns(there: Snapshot, row: Row[Any], query: str) -> bool:
    """Whether CREATE OR REPLACE would fail, as far as our view can be read before the upgrade."""
    try:
        with there.connection.begin_nested():
            sql = f"SELECT * FROM ({query}) AS ours LIMIT 0"
            cursor = there.connection.exec_driver_sql(sql, execution_options={"no_parameters": True}).cursor
    except DBAPIError:
        return False
    ours = [(column[0], column[1]) for column in cursor.description] if cursor else []
    theirs = sorted(row.columns.items(), key=lambda item: int(item[1]["place"]))
    return [(name, column["type_oid"]) for name, column in theirs] != ours[: len(theirs)]


def _warn_readers(found: Inspection, row: Row[Any], on: str) -> None:
    if row.is_invoker:
        return
    for role, lacks in sorted(row.readers_without_rights.items()):
        says = f"{role} will no longer be able to read {on}, for the view will use its reader's rights"
        found.warn("reader", f"{role} {on}", f"{says}: GRANT SELECT ON {', '.join(lacks)} TO {role}")
