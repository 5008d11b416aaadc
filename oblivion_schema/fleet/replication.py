"""The copy of a site that is moved: a publication and a slot on its source, a subscription on its target."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psycopg2
from sqlalchemy import Boolean, DateTime, Integer, Numeric, Text, Uuid, text

from oblivion_schema.errors import UserError, cannot_connect
from oblivion_schema.fleet.fence import MARKS
from oblivion_schema.tables.base import metadata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from oblivion_schema.server.database import Database

NAME: Final = "oblivion_move"
"""Of the publication and of the subscription; the slot's name has the oid of the database, too."""

# Clients of the engine touch calls before accounts before the ledger. Locks taken in that order make fewer circles.
_FIRST: Final = ("call_sessions", "call_meters", "call_segments", "user_presence", "user_accounts", "token_ledger")


_TABLES: Final = {
    f"{table.schema or 'public'}.{table.name}": table for table in metadata.tables.values() if not table.is_view
}
_AGGREGATES: Final = {
    Integer: "sum({})",
    Numeric: "sum({})",
    DateTime: "max({})",
    Boolean: "count(*) FILTER (WHERE {})",
    Text: "sum(hashtext({}))",
    Uuid: "sum(uuid_hash({}))",
}


def tables() -> dict[str, list[str]]:
    """The tables of a site, with their schemas and columns. The version table is none: the target has its own."""
    of_first = {name: number for number, name in enumerate(_FIRST)}
    names = sorted(_TABLES, key=lambda name: (of_first.get(_TABLES[name].name, len(_FIRST)), name))
    return {name: [column.name for column in _TABLES[name].columns] for name in names}


def publish(connection: Connection) -> None:
    """Make the publication of all tables, and of the marks."""
    connection.exec_driver_sql(f"CREATE PUBLICATION {NAME} FOR TABLE {', '.join([*tables(), MARKS])}")


def slot_name(connection: Connection) -> str:
    """The slot's name, which belongs to the source's whole server."""
    oid = connection.scalar(text("SELECT oid FROM pg_database WHERE datname = current_database()"))
    return f"{NAME}_{oid}"


class Slot(NamedTuple):
    """The slot of a move: whether it has what the target needs still, and whether the target reads from it."""

    is_whole: bool
    is_active: bool


def slot(connection: Connection) -> Slot | None:
    """The slot, if it is there."""
    found = connection.execute(
        text(
            "SELECT wal_status IS DISTINCT FROM 'lost' AS is_whole, active AS is_active FROM pg_replication_slots"
            " WHERE slot_name = :name"
        ),
        {"name": slot_name(connection)},
    ).one_or_none()
    return Slot(*found) if found else None


def transactions(connection: Connection) -> str:
    """The transactions of the server that a new slot waits for, if they are not short."""
    return ", ".join(connection.scalars(text(_TRANSACTIONS)))


_TRANSACTIONS: Final = """
SELECT format('process %s (%s)', pid, concat_ws(', ', datname, usename, nullif(application_name, '')))
FROM pg_stat_activity
WHERE backend_xid IS NOT NULL AND xact_start < clock_timestamp() - interval '1 second'
UNION ALL
SELECT format('prepared transaction %s (%s)', gid, database) FROM pg_prepared_xacts
"""


def make_slot(connection: Connection) -> None:
    """Make the slot; PostgreSQL waits until the transactions that run now are over. `connection` is in autocommit."""
    name = slot_name(connection)
    connection.exec_driver_sql("SET lock_timeout = 0")
    connection.execute(text("SELECT pg_create_logical_replication_slot(:name, 'pgoutput')"), {"name": name})


def drop_slot(connection: Connection) -> None:
    """Drop the slot, also from under a target that still reads from it. `connection` is in autocommit."""
    connection.execute(
        text(
            "SELECT pg_terminate_backend(active_pid, 10000) FROM pg_replication_slots"
            " WHERE slot_name = :name AND active_pid IS NOT NULL"
        ),
        {"name": slot_name(connection)},
    )
    connection.execute(
        text("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = :name"),
        {"name": slot_name(connection)},
    )


def unpublish(connection: Connection) -> None:
    """Drop the publication."""
    connection.exec_driver_sql(f"DROP PUBLICATION IF EXISTS {NAME}")


def way_to(source: Database, said: str) -> str:
    """The connection string by which the target's server reaches the source, with the password that is used here.

    `said` names the URL in an error. Raises UserError if it cannot be connected to from here.
    """
    conninfo, password = source.conninfo()
    try:
        connection = psycopg2.connect(conninfo, password=password or None)
    except psycopg2.Error as error:
        raise cannot_connect(said, error) from error
    with closing(connection):
        its = connection.info
        found = {"host": its.host, "port": its.port, "dbname": its.dbname, "user": its.user, "password": its.password}
    given = psycopg2.extensions.parse_dsn(conninfo)
    safety = {name: value for name, value in given.items() if name.startswith(("ssl", "channel", "gss"))}
    parts: dict[str, Any] = {name: value for name, value in found.items() if value} | safety
    return str(psycopg2.extensions.make_dsn(**parts))


def subscribe(connection: Connection, way: str, slot: str) -> None:
    """Make the subscription, which begins to copy when the transaction commits."""
    _subscribe(connection, way, NAME, f"slot_name = '{slot}', create_slot = false")
    if copied(connection)[1] != len(_TABLES) + 1:
        raise UserError(
            "The target's server reaches another database than the site's by that URL: say with --source-url how it"
            " reaches this one."
        )


def try_to_reach(connection: Connection, way: str) -> None:
    """Connect from the target's server to the source. The transaction has to be rolled back."""
    # Of a publication that is not there PostgreSQL only warns.
    _subscribe(connection, way, f"{NAME}_trial", "slot_name = NONE, create_slot = false, enabled = false")


def _subscribe(connection: Connection, way: str, publication: str, options: str) -> None:
    if connection.scalar(text("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")):
        for setting in _SILENT:  # the password is in the statement; other roles may not set these
            connection.exec_driver_sql(f"SET LOCAL {setting}")
    quoted = "'" + way.replace("'", "''") + "'"
    connection.exec_driver_sql(
        f"CREATE SUBSCRIPTION {NAME} CONNECTION {quoted} PUBLICATION {publication} WITH ({options})",
        execution_options={"no_parameters": True},
    )


_SILENT: Final = (
    "log_min_error_statement = panic",
    "log_statement = none",
    "log_min_duration_statement = -1",
    "log_min_duration_sample = -1",
    "pg_stat_statements.track_utility = off",
)


def is_subscribed(connection: Connection) -> bool:
    """Whether the target has the subscription."""
    return bool(connection.scalar(text(f"SELECT true {_OURS}")))


def unsubscribe(connection: Connection) -> None:
    """Drop the subscription and leave the slot, also if the source is gone. `connection` is in autocommit."""
    if is_subscribed(connection):
        connection.exec_driver_sql(f"ALTER SUBSCRIPTION {NAME} DISABLE")
        connection.exec_driver_sql(f"ALTER SUBSCRIPTION {NAME} SET (slot_name = NONE)")
        connection.exec_driver_sql(f"DROP SUBSCRIPTION {NAME}")


def copied(connection: Connection) -> tuple[int, int, int]:
    """How many tables are copied, of how many, and how often the subscription has failed."""
    found = connection.execute(text(_COPIED)).one()
    return found.ready, found.all, found.failures


_OURS: Final = (
    "FROM pg_subscription AS s JOIN pg_database AS d ON d.oid = s.subdbid"
    f" WHERE d.datname = current_database() AND s.subname = '{NAME}'"
)
_COPIED: Final = f"""
SELECT
  (SELECT count(*) FILTER (WHERE srsubstate = 'r') FROM pg_subscription_rel WHERE srsubid = s.oid) AS ready,
  (SELECT count(*) FROM pg_subscription_rel WHERE srsubid = s.oid) AS all,
  -- Their names are not the same in all versions.
  (
    SELECT coalesce(sum(CAST(e.value AS bigint)), 0)
    FROM pg_stat_subscription_stats AS t, jsonb_each_text(to_jsonb(t)) AS e
    WHERE t.subid = s.oid AND e.key LIKE '%error_count'
  ) AS failures
{_OURS}
"""  # noqa: S608 - constants


class Patience:
    """Tells a subscription that fails again and again from one that waits: for a slot, or for a server."""

    def __init__(self, source: Connection, target: Connection) -> None:
        self._source, self._target = source, target
        self._seen: tuple[int, int] | None = None
        self._since = self._active_at = time.monotonic()

    def look(self) -> tuple[int, int]:
        """How many tables are copied, of how many. Raises UserError if nothing more is going to be done."""
        found = slot(self._source)
        if found is None or not found.is_whole:
            raise UserError(THROWN_AWAY)
        now = time.monotonic()
        done, count, failures = copied(self._target)
        if found.is_active:
            self._active_at = now
        if self._seen is None or done != self._seen[0]:
            self._seen, self._since = (done, failures), now
        fails = failures >= self._seen[1] + _FAILURES and now > self._since + _FAILING_SECONDS
        if fails or now > self._active_at + _ABSENT_SECONDS:
            said = "cannot take over what the site sends" if fails else "does not connect to the site's server"
            raise UserError(
                f"The target {said}; the log of the target's server says why. Mend that, and run the command again; or"
                " take the move back with --cancel."
            )
        return done, count


THROWN_AWAY: Final = (
    "The site's server has thrown away what the target still needs (max_slot_wal_keep_size, or a dropped slot). Take"
    " the move back with --cancel, and begin again."
)
_FAILURES: Final = 4
_FAILING_SECONDS: Final = 20
_ABSENT_SECONDS: Final = 60


def sums(connection: Connection) -> dict[str, str]:
    """Of each table the number of rows, and sums of its numbers and of hashes of its texts, and its newest times."""
    parts = []
    for name, table in sorted(_TABLES.items()):
        of_columns = [
            aggregate.format(f'"{column.name}"')
            for column in table.columns
            for kind, aggregate in _AGGREGATES.items()
            if isinstance(column.type, kind)
        ]
        values = ", ".join(["count(*)", *of_columns])
        parts.append(f"SELECT '{name}' AS name, concat_ws(' ', {values}) AS sums FROM {name}")  # noqa: S608 - constants
    return {row.name: row.sums for row in connection.execute(text("\nUNION ALL\n".join(parts)))}


def numbers(connection: Connection, names: Sequence[str]) -> dict[str, int]:
    """The newest number of each sequence of these tables that one was taken from."""
    found = connection.execute(text(_NUMBERS), {"tables": list(names)})
    return {row.name: row.newest for row in found if row.newest is not None}


def set_numbers(connection: Connection, found: dict[str, int]) -> None:
    """Let each sequence go on after its number."""
    for name, newest in found.items():
        connection.execute(
            text("SELECT setval(s, greatest(:newest, pg_sequence_last_value(s))) FROM CAST(:name AS regclass) AS s"),
            {"name": name, "newest": newest},
        )


_NUMBERS: Final = """
SELECT DISTINCT d.objid::regclass::text AS name, pg_sequence_last_value(d.objid) AS newest
FROM pg_depend AS d
JOIN pg_class AS c ON c.oid = d.objid AND c.relkind = 'S'
WHERE d.classid = 'pg_class'::regclass
  AND d.deptype IN ('a', 'i')
  AND d.refobjid = ANY (CAST(:tables AS regclass[]))
"""
