"""What keeps a site from being moved: all of it is asked before anything is changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.errors import primary_message
from oblivion_schema.fleet import replication

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Row

_SQL: Final = Path(__file__).parent / "move"
_KNOWS_SUBSCRIBERS: Final = 16
_LOGICAL_ON_DEMAND: Final = 19
_NEEDED: Final = 2
"""Of slots, senders, origins and workers: one for the subscription, and at least one for a table that is copied."""


def facts(connection: Connection, side: str) -> Row[Any]:
    """What a server says of itself as `source` or `target`."""
    return connection.execute(text(_read(f"{side}.sql"))).one()


def of_source(connection: Connection, source: Row[Any], *, is_begun: bool) -> Iterator[str]:
    """What the source lacks, each a line with what mends it."""
    if source.is_standby:
        yield "The site's server is a standby: name the primary in the file."
        return
    if source.wal_level != "logical" and not (source.major >= _LOGICAL_ON_DEMAND and source.wal_level == "replica"):
        yield (
            f"wal_level of the site's server is {source.wal_level}: a superuser has to run ALTER SYSTEM SET wal_level ="
            " 'logical', and to restart it."
        )
    needed = _NEEDED - is_begun
    if source.slots < needed:
        yield (
            f"The site's server has {_number(source.slots, 'replication slot')} left, and a move takes {needed}: drop"
            " unused ones (pg_replication_slots), or raise max_replication_slots and restart it."
        )
    if source.senders < needed:
        yield (
            f"The site's server has {_number(source.senders, 'walsender')} left, and a move takes {needed}: raise"
            " max_wal_senders and restart it."
        )
    if not source.may_replicate:
        yield (
            f"Role {source.role} may not replicate: let a superuser run ALTER ROLE {_quoted(source.role)} REPLICATION"
            " on the site's server."
        )
    if not source.may_create:
        yield (
            f"Role {source.role} may not create a publication: let the owner run GRANT CREATE ON DATABASE"
            f" ... TO {_quoted(source.role)} on the site's server."
        )
    if source.subscriptions:
        yield (
            f"The site is a subscriber itself ({source.subscriptions}), and what it gets would not be refused when it"
            " has moved: drop the subscription."
        )
    tables = replication.tables()
    found = connection.execute(
        text(_read("tables.sql")),
        {"tables": list(tables), "columns": json.dumps({name: " ".join(its) for name, its in tables.items()})},
    )
    yield from (f"Table {row.name} cannot be moved: {row.why}." for row in found)


def others(connection: Connection) -> list[str]:
    """The tables that a move leaves where they are."""
    return [*connection.scalars(text(_read("others.sql")), {"tables": list(replication.tables())})]


def of_target(target: Row[Any], source: Row[Any], *, is_begun: bool, is_there: bool) -> Iterator[str]:
    """What the target's server lacks, each a line with what mends it."""
    if target.is_standby:
        yield "The target's server is a standby: name its primary."
        return
    if target.major != source.major:
        yield (
            f"The site's server runs PostgreSQL {source.major} and the target's {target.major}: a move needs one major"
            " version. Take a target of that version, or upgrade the site's server first."
        )
    if not target.may_subscribe:
        yield (
            f"Role {target.role} may not subscribe: let a superuser run GRANT pg_create_subscription TO"
            f" {_quoted(target.role)} on the target's server."
            if target.major >= _KNOWS_SUBSCRIBERS
            else f"Role {target.role} may not subscribe: on PostgreSQL {target.major} it has to be a superuser."
        )
    if is_there and not target.may_create:
        yield (
            f"Role {target.role} may not subscribe in the target: let its owner run GRANT CREATE ON DATABASE ... TO"
            f" {_quoted(target.role)}."
        )
    needed = 1 if is_begun else _NEEDED
    if target.workers < needed:
        yield (
            f"The target's server has {_number(target.workers, 'worker')} for logical replication left, and a move"
            f" takes {needed}: raise max_logical_replication_workers and max_worker_processes, and restart it."
        )
    if target.origins < needed:
        setting = "max_replication_slots" if target.major < _ORIGINS_APART else "max_active_replication_origins"
        yield (
            f"The target's server has {_number(target.origins, 'replication origin')} left, and a move takes {needed}:"
            f" raise {setting} and restart it."
        )


_ORIGINS_APART: Final = 18


def needs_password(target: Row[Any], way: str) -> Iterator[str]:
    """What the connection string of the subscription lacks."""
    if not target.is_superuser and "password=" not in way:
        yield (
            f"Role {target.role} is no superuser on the target's server, so that it has to reach the site's with a"
            " password: give the site's role one, and allow it in pg_hba.conf."
        )


def reach(connection: Connection, way: str) -> Iterator[str]:
    """Whether the target's server reaches the source: a subscription that is rolled back."""
    connection.exec_driver_sql("BEGIN")
    try:
        replication.try_to_reach(connection, way)
    except DBAPIError as error:
        yield (
            f"The target's server does not reach the site's: {primary_message(error).rstrip('.?')}. Say how it does,"
            " with --source-url."
        )
    finally:
        connection.exec_driver_sql("ROLLBACK")


def grants(connection: Connection) -> dict[str, str]:
    """What was granted to roles that the code does not know: a statement for each, and its role."""
    found = connection.execute(text(_read("grants.sql")), {"known": list(API_ROLES)})
    return {row.statement: row.role for row in found}


def missing_roles(connection: Connection, roles: set[str]) -> Iterator[str]:
    """The roles that have privileges on the source and are not on the target's server."""
    there = {*connection.scalars(text("SELECT rolname FROM pg_roles"))}
    for role in sorted(roles - there):
        yield (
            f"Role {role} has privileges on the site's tables, and is not on the target's server: create it there, or"
            " revoke them."
        )


def rows(connection: Connection) -> list[str]:
    """The tables of ours that have rows which no upgrade writes."""
    union = " UNION ALL ".join(
        f"SELECT '{name}' WHERE EXISTS (SELECT FROM {name})"  # noqa: S608 - constants
        for name in replication.tables()
        if name not in _WRITTEN_BY_UPGRADES
    )
    return [*connection.scalars(text(union))]


_WRITTEN_BY_UPGRADES: Final = frozenset({"public.token_rates"})


def _number(count: int, noun: str) -> str:
    return f"{max(count, 0) or 'no'} {noun}{'s' * (count != 1)}"


def _quoted(role: str) -> str:
    return '"' + role.replace('"', '""') + '"'


def _read(name: str) -> str:
    return (_SQL / name).read_text(encoding="utf-8")
