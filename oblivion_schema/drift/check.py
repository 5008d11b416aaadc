"""`oblivion-schema check --against URL`: that database is only read; the schema is built on another server."""

from __future__ import annotations

import io
import json
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import func, select, text, true
from sqlalchemy.exc import DBAPIError

from oblivion_schema import operations, progress
from oblivion_schema.drift.compare import Drift, find_drift
from oblivion_schema.drift.plan import Call, File, in_the_way
from oblivion_schema.drift.standin import MayNotBuildError
from oblivion_schema.errors import UserError, explain, primary_message, sqlstate
from oblivion_schema.server import embedded
from oblivion_schema.server.database import OLDEST_POSTGRESQL, Database
from oblivion_schema.tables.access import switch
from oblivion_schema.tables.adoption_log import adoption_log
from oblivion_schema.tables.base import PRIVATE_SCHEMA, metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection

    from oblivion_schema.drift.plan import Statement

_FIX = "Upgrade it first."


def check_against(
    database: Database,
    scratch: Database | None,
    revisions: ScriptDirectory,
    name_it: Callable[[Database, Connection], None],
) -> Drift:
    """Compare `database`, in a read-only transaction, with what the metadata builds on a server of the same version.

    That server is `scratch`, or the embedded one if it has that version; everything built there is rolled back.
    `name_it` is told of both databases.

    Raises UserError if one of the two cannot be reached, its role lacks a right, or `database` is at another revision.
    """
    if scratch is not None and scratch.url == database.url:
        raise UserError("--scratch is the database of --against, which is only read: name another database.")
    with database.connect() as live:
        name_it(database, live)
        # All queries see one snapshot.
        live.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            take_time(live)
            require_newest_revision(live, revisions, "The role of --against")
            # Without the log, objects that an adoption kept would count as differences: fail early if it is unreadable.
            live.execute(select(adoption_log).limit(0))
            with _built_on(scratch, _major(live), name_it) as migration:
                return find_drift(live, migration, metadata, revisions)
        except DBAPIError as error:
            if sqlstate(error) == "42501":
                raise UserError(f"{primary_message(error)}: GRANT SELECT to the role of --against.") from error
            raise explain(error, live.engine) from error
        except MayNotBuildError as error:
            raise UserError(
                "The role of --scratch has to own schema public there, and to have CREATE on the database, which must"
                " not be read-only: connect as the database's owner. Everything that is built is rolled back."
            ) from error


def compare_here(
    database: Database,
    revisions: ScriptDirectory,
    name_it: Callable[[Database, Connection], None],
    take_turn: Callable[[Connection], None],
    *,
    drop_unknown: bool = False,
) -> Drift:
    """Compare `database` with the schema built in it, which is rolled back, once `take_turn` returns.

    `drop_unknown` lets the steps drop what the metadata does not know. Raises UserError as `find_drift()`.
    """
    with database.connect() as connection:
        name_it(database, connection)
        try:
            take_turn(connection)
            require_newest_revision(connection, revisions, "This role")
            connection.execute(select(func.set_config("search_path", "public", true())))
            scratch = MigrationContext.configure(connection=connection)
            drift = find_drift(connection, scratch, metadata, revisions, drop_unknown=drop_unknown)
        except DBAPIError as error:
            raise explain(error, connection.engine) from error
        connection.rollback()
    return drift


def document(drift: Drift, revision: str | None) -> str:
    """What was found, as one JSON text: docs/drift.md describes it, and its keys never change their meaning."""
    found = {
        "status": "differs" if drift.differences else "same",
        "revision": revision,
        "access": drift.access,
        "differences": [
            {key: value or None for key, value in difference._asdict().items()} for difference in drift.differences
        ],
        "kept": [
            f"{difference.kind} {difference.name}".strip()
            for difference in (*drift.kept, *(found for found in drift.differences if not found.kind))
        ],
        "left_alone": list(drift.left_alone),
        "missing_roles": list(drift.missing_roles),
    }
    return json.dumps(found, indent=2)


def script(drift: Drift) -> Iterator[str]:
    """The lines of an SQL script that mends the differences, in one transaction; comments say what it leaves."""
    for line in drift.report():
        yield from (f"-- {part}".rstrip() for part in re.split(r"[\r\n]+", line))
    statements = drift.upgrade()
    if blocked := in_the_way(drift.steps, drift.others):
        yield f"-- {', '.join(map(str, blocked))}: not ours, but in the way: drop it before, create it after."
    if any(found.kind == "grant" for found in drift.differences):
        # To take a privilege on a table takes it on the columns, too: all grants are given once more.
        statements.append(switch(metadata, access=drift.access))
    if not statements:
        yield "-- Nothing to mend."
        return
    yield "BEGIN;"
    for statement in statements:
        yield ""
        yield _sql_of(statement)
    yield ""
    yield "COMMIT;"


def _sql_of(statement: Statement) -> str:
    if isinstance(statement, File):
        return statement.text.rstrip("\n")
    if isinstance(statement, Call):
        said = io.StringIO()
        offline = {"as_sql": True, "output_buffer": said}
        with Operations.context(MigrationContext.configure(dialect_name="postgresql", opts=offline)):
            getattr(operations, statement.function)(*statement.arguments)
        return said.getvalue().strip()
    return f"{statement};"


def require_newest_revision(live: Connection, revisions: ScriptDirectory, role: str) -> None:
    """Raise UserError if the database is not at the newest revision, or `role` may not read its revision."""
    try:
        with live.begin_nested():
            found = live.scalars(text(f"SELECT version_num FROM {PRIVATE_SCHEMA}.alembic_version")).all()  # noqa: S608
    except DBAPIError as error:
        if sqlstate(error) == "42501":
            raise UserError(
                f"{role} may not read {PRIVATE_SCHEMA}.alembic_version: GRANT USAGE ON SCHEMA {PRIVATE_SCHEMA} and"
                " SELECT on that table to it, or connect as the table's owner."
            ) from error
        raise UserError(
            f"The database has no {PRIVATE_SCHEMA}.alembic_version: no revision was applied. {_FIX}"
        ) from error
    heads = revisions.get_heads()
    if newer := set(found) - {script.revision for script in revisions.walk_revisions()}:
        raise UserError(
            f"The database is at {', '.join(newer)}, which this version of oblivion_schema does not have; its newest"
            f" revision is {', '.join(heads)}. Install the version that upgraded the database, or a newer one."
        )
    if sorted(found) != sorted(heads):
        raise UserError(
            f"The database is at {', '.join(found) or 'no revision'}, the code at {', '.join(heads)}. {_FIX}"
        )


def take_time(connection: Connection) -> None:
    """Lift the role's timeouts for this transaction, which is idle while another connection works."""
    connection.execute(
        text(
            "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN"
            " ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')"
        )
    )


@contextmanager
def _built_on(
    scratch: Database | None, major: int, name_it: Callable[[Database, Connection], None]
) -> Iterator[MigrationContext]:
    built_on = scratch or _embedded(major)
    with built_on.connect() as connection:
        name_it(built_on, connection)
        if _major(connection) != major:
            raise UserError(
                f"--scratch runs PostgreSQL {_major(connection)}, the database {major}, and each prints definitions in"
                " its own way. Name a server of the same major version."
            )
        take_time(connection)
        connection.execute(select(func.set_config("search_path", "public", true())))
        with progress.shown("Building the schema to compare with", connection):
            yield MigrationContext.configure(connection=connection)
        connection.rollback()


def _embedded(major: int) -> Database:
    if not embedded.is_installed() or major not in embedded.VERSIONS:
        here = " and ".join(map(str, embedded.VERSIONS)) if embedded.is_installed() else "none"
        raise UserError(
            f"The database runs PostgreSQL {major}, and the embedded ones here are {here}: name a server of version"
            f" {major} with --scratch postgresql://... The schema is built there, and rolled back."
        )
    directory = embedded.data_directory(major)
    runs = (directory / "postmaster.pid").exists()
    with progress.shown("Starting the embedded PostgreSQL"):
        server = embedded.start(directory, at_exit=None if runs else "stop", major=major)
    source = "the embedded PostgreSQL, as no --scratch is given"
    return Database(embedded.url(server), source, "The schema is built here, and rolled back.")


def _major(connection: Connection) -> int:
    found = connection.dialect.server_version_info or (OLDEST_POSTGRESQL,)
    return int(found[0])
