"""`fleet SITES.toml add NAME --url URL`: a new site, whose database is made if it is missing.

Its steps are: make the database, see that it holds nothing foreign, upgrade it, verify it, write it into the file. Each
of them does nothing where it is done already, so that the same command goes on where one was interrupted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.adoption.inspection import inspect
from oblivion_schema.errors import UserError, explain, sqlstate
from oblivion_schema.server.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.script import ScriptDirectory

    from oblivion_schema.adoption.report import Inspection
    from oblivion_schema.deploy.options import Options

_MAINTENANCE: Final = ("postgres", "template1")
_IS_THERE: Final = "42P04"


def make_database(database: Database) -> bool:
    """Make the database if its server does not have it; whether it did. Raises UserError if it cannot be reached."""
    try:
        with database.connect():
            return False
    except UserError as error:
        name = database.url.database
        if name is None:  # libpq takes the name from elsewhere
            raise
        for other in beside(database):
            found = _make(other, name)
            if found is not None:
                if found:
                    return True
                break
        raise error from None


def beside(database: Database) -> Iterator[Database]:
    """Databases of the same server that are usually there."""
    for name in _MAINTENANCE:
        yield Database(database.url.set(database=name), database.source)


def _make(beside: Database, name: str) -> bool | None:
    """Make a database from another of its server: whether it was missing; None if the other cannot be reached."""
    try:
        with beside.connect() as connection:
            connection.rollback()
            connection.execution_options(isolation_level="AUTOCOMMIT")
            if connection.scalar(text("SELECT true FROM pg_database WHERE datname = :name"), {"name": name}):
                return False
            quoted = connection.dialect.identifier_preparer.quote_identifier(name)
            try:
                connection.exec_driver_sql(f"CREATE DATABASE {quoted}", execution_options={"no_parameters": True})
            except DBAPIError as error:
                if sqlstate(error) == _IS_THERE:  # somebody has made it meanwhile
                    return True
                if sqlstate(error) == "42501":
                    role = connection.scalar(text("SELECT current_user"))
                    raise _NotMadeError(
                        f"The database {name} is not there, and {role} may not make it. Let a superuser run"
                        f" CREATE DATABASE {quoted} OWNER {role}, and run this again."
                    ) from error
                raise _NotMadeError(
                    f"The database {name} cannot be made: {explain(error, connection.engine)}"
                ) from error
            return True
    except _NotMadeError:
        raise
    except UserError:
        return None


class _NotMadeError(UserError):
    """The database is missing, and cannot be made."""


def require_new_or_ours(database: Database, revisions: ScriptDirectory, options: Options) -> None:
    """Raise UserError, in the words of `inspect`, if the database holds something that is not ours."""
    with database.connect() as connection:
        try:
            found = inspect(connection, revisions, demo=options.demo, lock_timeout=options.lock_timeout)
        except DBAPIError as error:
            raise explain(error, connection.engine) from error
    if foreign := _foreign(found):
        raise UserError(
            f"The database is not empty, and not ours alone: {foreign}. Nothing was changed. Name an empty one; or, to"
            " take over what is there, write the site into the file by hand, then inspect and upgrade it."
        )


def _foreign(found: Inspection) -> str:
    if found.obstacles:
        return "; ".join(map(str, found.obstacles))
    if found.state.startswith(("made by hand", "tables of ours")):
        return found.state
    return ", ".join(f"{finding.kind} {finding.name}" for finding in found.stays if finding.kind not in _OUR_KINDS)


_OUR_KINDS: Final = frozenset({"demo accounts", "grant"})
