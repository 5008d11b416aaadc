"""What the sites of a fleet are at: one cheap connection to each, many at once, which changes nothing."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from oblivion_schema import progress
from oblivion_schema.errors import UserError, one_line, primary_message, sqlstate
from oblivion_schema.fleet.sites import same_database
from oblivion_schema.tables.backfills import backfills
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from oblivion_schema.fleet.sites import Site

_AT_ONCE: Final = 16
_MAY_NOT: Final = "42501"
_NONE: Final = frozenset({"42P01", "3F000"})  # no such table, no such schema
_BOUNDS: Final = "SELECT set_config('lock_timeout', '5s', true), set_config('statement_timeout', '10s', true)"
_VERSIONS: Final = f"SELECT version_num FROM {PRIVATE_SCHEMA}.alembic_version ORDER BY 1"  # noqa: S608 - a constant
# A standby, or a server copied as files, has the same identifier and the same oids, but was started by itself.
_IDENTITY: Final = """
SELECT concat_ws(' ', system_identifier, oid, extract(epoch FROM pg_postmaster_start_time()))
FROM pg_control_system(), pg_database
WHERE datname = current_database()
"""


@dataclass(frozen=True)
class Look:
    """What was seen of a site.

    - `error`: why it could not be connected to; then the rest is unknown.
    - `revisions`: those that it is at; None if this role may not read them.
    - `is_whole`: whether it is at the newest revision and nothing is left to be filled in.
    - `identity`: tells the database from all others; None where this role may not ask.
    """

    site: Site
    seconds: float
    error: str | None = None
    revisions: tuple[str, ...] | None = None
    is_whole: bool = False
    identity: str | None = None


def look_at(sites: Sequence[Site], heads: Collection[str]) -> list[Look]:
    """Look at all of them, in their order; `heads`: the newest revision."""
    waiting: SimpleQueue[Site] = SimpleQueue()
    seen: SimpleQueue[Look] = SimpleQueue()
    for site in sites:
        waiting.put(site)

    def work() -> None:
        while not waiting.empty():
            with suppress(Exception):
                seen.put(_look(waiting.get_nowait(), heads))

    # Daemons, so that Ctrl-C does not wait for a host that does not answer.
    for _ in range(min(_AT_ONCE, len(sites))):
        Thread(target=work, daemon=True).start()
    with progress.shown("Looking at the sites"):
        looks = {look.site.name: look for look in (seen.get() for _ in sites)}
    return [looks[site.name] for site in sites]


def require_distinct(looks: Sequence[Look], file: Path) -> None:
    """Raise UserError if two sites are one database, which two addresses may lead to."""
    found: dict[str, str] = {}
    for look in looks:
        if look.identity is not None:
            if look.identity in found:
                raise same_database(found[look.identity], look.site.name, file)
            found[look.identity] = look.site.name


def _look(site: Site, heads: Collection[str]) -> Look:
    began = time.monotonic()
    try:
        with site.database.connect() as connection:
            connection.exec_driver_sql(_BOUNDS)
            identity = _identity(connection)
            revisions = _revisions(connection)
            is_head = revisions is not None and set(revisions) == set(heads)
            is_whole = is_head and _is_filled(connection)
    except UserError as error:
        return Look(site, time.monotonic() - began, str(error))
    except DBAPIError as error:
        return Look(
            site, time.monotonic() - began, f"{site.database}: {primary_message(error)}. Run the command again."
        )
    except Exception as error:  # noqa: BLE001 - whatever a driver raises is one site's failure
        return Look(site, time.monotonic() - began, f"{site.database}: {one_line(error)}")
    return Look(site, time.monotonic() - began, None, revisions, is_whole, identity)


def _identity(connection: Connection) -> str | None:
    with suppress(SQLAlchemyError), connection.begin_nested():
        return str(connection.scalar(text(_IDENTITY)))
    return None


def _revisions(connection: Connection) -> tuple[str, ...] | None:
    try:
        with connection.begin_nested():
            return tuple(connection.scalars(text(_VERSIONS)))
    except DBAPIError as error:
        if sqlstate(error) in _NONE:
            return ()
        if sqlstate(error) == _MAY_NOT:
            return None
        raise


def _is_filled(connection: Connection) -> bool:
    with suppress(SQLAlchemyError), connection.begin_nested():
        return connection.scalar(select(backfills.c.name).limit(1)) is None
    return False
