"""What becomes of the rows and columns of a `user_presence` that people made by hand, before it is one of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from oblivion_schema.adoption.report import number_of_rows
from oblivion_schema.declare.sql import quoted

if TYPE_CHECKING:
    from sqlalchemy import Row

    from oblivion_schema.adoption.report import Inspection
    from oblivion_schema.adoption.snapshot import Snapshot

_UNIQUE: Final = "idx_user_presence_host_unique"
_SHOWN: Final = 5
"""Hosts with several rows that are named."""


def types_of_presence(row: Row[Any]) -> dict[str, str]:
    """The types of the columns, once they have the names of ours."""
    types = {name: column["type"] for name, column in row.columns.items()}
    if _is_renamed(row):
        types["host_id"] = types.pop("user_id")
    return {"room_token": "text"} | types


def take_over_presence(there: Snapshot, found: Inspection, row: Row[Any]) -> tuple[str, set[str]]:
    """Tell what becomes of columns and duplicates; return the rows after that, as a query, and the names that go."""
    gone = set()
    if _is_renamed(row):
        found.do("renamed", "public.user_presence.host_id", "rename public.user_presence.user_id to host_id")
        gone.add("user_id")
    elif "user_id" in row.columns:
        says = "fill public.user_presence.host_id from user_id where it is NULL, and let user_id be NULL"
        found.do("renamed", "public.user_presence.host_id", says)
    if "room_token" not in row.columns:
        found.do("added", "public.user_presence.room_token", "add the column public.user_presence.room_token")
    if _UNIQUE in row.constraints:
        gone.add(_UNIQUE)  # an index takes its place
    is_moved = _move_duplicates(there, found, row)
    others = ", ".join(quoted(name) for name in row.columns if name != "host_id")
    host = _host(row)
    first = f"DISTINCT ON ({host}) " if is_moved else ""
    order = f" ORDER BY {host}, updated_at DESC NULLS LAST, id" if is_moved else ""
    return f"(SELECT {first}{others}, {host} AS host_id FROM public.user_presence{order})", gone


def _move_duplicates(there: Snapshot, found: Inspection, row: Row[Any]) -> bool:
    """Tell which rows go to the log, because their host has a newer one."""
    if not row.may_read or (_UNIQUE in row.indexes and _UNIQUE not in row.constraints):
        return False
    hosts = there.counts(
        found,
        "public.user_presence",
        f"SELECT {_host(row)} AS host, count(*) - 1 AS moved FROM public.user_presence"
        " GROUP BY 1 HAVING count(*) > 1 ORDER BY 2 DESC, 1",
    )
    if hosts and row.is_referred_to:
        found.stop(
            "row",
            "public.user_presence",
            "public.user_presence has several rows of one host, and another table refers to it: leave one row for each"
            " host",
        )
    elif hosts:
        moved = sum(host.moved for host in hosts)
        named = ", ".join(f"{host.host} {host.moved}" for host in hosts[:_SHOWN])
        more = f" and {len(hosts) - _SHOWN} more" * (len(hosts) > _SHOWN)
        says = f"move {number_of_rows(moved)} of public.user_presence, whose host has a newer row, to"
        found.do("row", "public.user_presence", f"{says} oblivion.adoption_log: {named}{more}", moved)
    return bool(hosts) and not row.is_referred_to


def _is_renamed(row: Row[Any]) -> bool:
    return "user_id" in row.columns and "host_id" not in row.columns


def _host(row: Row[Any]) -> str:
    """The host, as it is once the columns are taken over."""
    return f"coalesce({', '.join(name for name in ('host_id', 'user_id') if name in row.columns)})"
