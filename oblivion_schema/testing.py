"""A database with this schema for each test: what the fixtures of `pytest_oblivion_schema` do.

A template is built once for each session, and copied for each test. pytest-postgresql creates and drops both.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from psycopg.sql import SQL, Composed
from pytest_postgresql.executors import NoopExecutor
from pytest_postgresql.janitor import DatabaseJanitor
from sqlalchemy import URL, func, insert, select, text, update

from oblivion_schema.errors import UserError
from oblivion_schema.server import embedded
from oblivion_schema.server.database import parse
from oblivion_schema.tables.accounts import user_accounts
from oblivion_schema.tables.calls import call_sessions
from oblivion_schema.tables.metering import call_meters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from psycopg import Cursor
    from sqlalchemy import Connection, Engine

SERVER_VARIABLE: Final = "OBLIVION_TEST_DATABASE_URL"

FAST: Final = """
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
"""
"""Lines of postgresql.conf: no test's database has to outlive a crash of the machine, so none waits for a disk."""


_MAY_CREATE_DATABASES: Final = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"


class Server(Protocol):
    """A server as pytest-postgresql's fixtures have it: `postgresql_proc` and `postgresql_noproc` are such."""

    host: str
    port: Any
    user: str
    password: str | None
    maintenance_dbname: str


class Janitor(DatabaseJanitor):
    """Creates and drops a database, a copy if it has a template."""

    def _build_create_database_sql(self) -> Composed:
        # A copy that is written to the WAL, page by page, costs the server twice as much.
        return SQL("{} STRATEGY FILE_COPY").format(super()._build_create_database_sql())

    @staticmethod
    def _terminate_connection(cur: Cursor, dbname: str) -> None:
        # A role that is no superuser may not end autovacuum, which lets go by itself.
        cur.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND backend_type = 'client backend'",
            (dbname,),
        )


def janitor(server: Server, template: str | None = None) -> Janitor:
    """The janitor of a new database: empty, or a copy of `template`."""
    return Janitor(
        user=server.user,
        host=server.host,
        port=server.port,
        password=server.password,
        dbname=f"oblivion_test_{uuid.uuid4().hex[:12]}",
        template_dbname=template,
        maintenance_dbname=server.maintenance_dbname,
    )


def url_of(server: Server, database: str) -> URL:
    """URL of a database, for psycopg2."""
    query = {"host": server.host} if server.host.startswith("/") else {}
    host = None if query else server.host
    return URL.create("postgresql+psycopg2", server.user, server.password, host, int(server.port), database, query)


def asynchronous(url: URL) -> URL:
    """The same database for `create_async_engine()`: by asyncpg if that is installed, else by psycopg."""
    return url.set(drivername=f"postgresql+{'asyncpg' if find_spec('asyncpg') else 'psycopg'}")


def as_server(url: URL) -> NoopExecutor:
    """The server of a URL, whose database is used for maintenance."""
    host = url.query.get("host") or url.host or "localhost"
    return NoopExecutor(
        host=host if isinstance(host, str) else host[0],
        port=url.port or 5432,
        user=url.username or "postgres",
        password=url.password,
        options="",
        dbname="oblivion_test",
        maintenance_dbname=url.database or "postgres",
    )


@contextmanager
def running_server() -> Iterator[NoopExecutor]:
    """The server of `OBLIVION_TEST_DATABASE_URL`, or an embedded one for this run, which is deleted at its end.

    Raises UserError if there is neither.
    """
    given = os.environ.get(SERVER_VARIABLE)
    if given is not None and not given.strip():
        raise UserError(
            f"{SERVER_VARIABLE} is set and empty: set it to postgresql://user:password@host/postgres, or unset it."
        )
    if given:
        database = parse(given, SERVER_VARIABLE)
        with database.connect() as connection:  # pytest-postgresql would try for a minute
            if not connection.scalar(text(_MAY_CREATE_DATABASES)):
                raise UserError(f"{database}: this role may create no databases. ALTER ROLE ... CREATEDB allows it.")
        yield as_server(database.url)
        return
    if not embedded.is_installed():
        raise UserError(
            f"No server for the tests: set {SERVER_VARIABLE} to one for throw-away databases, or install"
            " oblivion-schema[embedded]."
        )
    # The workers of pytest-xdist share one server: the last of them deletes it.
    home = temporary_home(os.environ.get("PYTEST_XDIST_TESTRUNUID"))
    server = embedded.start(home / "server", settings=FAST, at_exit="delete")
    try:
        yield as_server(embedded.url(server))
    finally:
        server.cleanup()
        if not (home / "server").exists():
            shutil.rmtree(home, ignore_errors=True)


def temporary_home(name: str | None = None) -> Path:
    """A new folder for a server's data, or the one of that name; another user may pass through: as root it runs as one.

    It is in memory where that has room: a copy takes a tenth of the time there.
    """
    memory = Path("/dev/shm")  # noqa: S108 - the names below it are not to be guessed
    roomy = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 1 << 30
    parent = memory if roomy else Path(tempfile.gettempdir())
    home = parent / f"oblivion-schema-tests-{name or uuid.uuid4().hex[:12]}"
    home.mkdir(exist_ok=name is not None)
    home.chmod(0o755)
    return home


@contextmanager
def template(server: Server, build: Callable[[URL], object]) -> Iterator[str]:
    """A new database that `build(url)` fills, only to be copied."""
    with janitor(server) as made:
        build(url_of(server, made.dbname))
        yield made.dbname


@contextmanager
def copy(server: Server, of: str) -> Iterator[URL]:
    """A copy of a template."""
    with janitor(server, of) as made:
        yield url_of(server, made.dbname)


def open_account(engine: Engine, user_id: str, tokens: int) -> str:
    """Open an account with `tokens`; returns its user_id."""
    with engine.begin() as connection:
        connection.execute(insert(user_accounts).values(user_id=user_id, tokens_remaining=tokens))
    return user_id


def pass_time(engine: Engine, session_id: uuid.UUID, passed: timedelta) -> None:
    """Let time pass for a call that goes on: everything about it that has a time happened so much earlier.

    Minutes count once they have started: a call of 2.5 minutes has three. Raises LookupError if no such call is
    committed, or it has ended. Connects as the owner of the tables.
    """
    with engine.begin() as connection:
        # A transaction of the test that has the call locked would otherwise never end.
        connection.execute(select(func.set_config("lock_timeout", "5s", True)))  # noqa: FBT003
        _pass_time(connection, session_id, passed)


def _pass_time(connection: Connection, session_id: uuid.UUID, passed: timedelta) -> None:
    its = call_meters.c.session_id == session_id
    meter = connection.execute(select(call_meters).where(its).with_for_update()).one_or_none()
    call = (
        update(call_sessions)
        .where(call_sessions.c.id == session_id, call_sessions.c.end_time.is_(None))
        .values(start_time=call_sessions.c.start_time - passed, created_at=call_sessions.c.created_at - passed)
    )
    if not connection.execute(call).rowcount:
        raise LookupError(f"No call {session_id} goes on: commit its start first. Of a call that ended no time passes.")
    if meter is not None:
        # After the triggers of the update above, which take it for a correction.
        kept = {"started_at": meter.started_at - passed, "seen_at": meter.seen_at - passed, "is_plain": meter.is_plain}
        connection.execute(update(call_meters).where(its).values(kept))
