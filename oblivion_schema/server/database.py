"""Find the database's URL, show it without its password, and connect to it."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import psycopg2.extensions
import psycopg2.extras
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from oblivion_schema.errors import UserError, cannot_connect
from oblivion_schema.progress import APPLICATION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Connection, Engine

VARIABLES: Final = ("OBLIVION_DATABASE_URL", "DATABASE_URL")
OLDEST_POSTGRESQL: Final = 15
EMBEDDED: Final = "Embedded PostgreSQL"
_LOOKS: Final = 5
_TRANSACTION_POOLER_PORT: Final = 6543
TRANSACTION_POOLER: Final = "Port 6543 is Supabase's transaction pooler; use port 5432, direct or session mode."
LIBPQ: Final = frozenset({"psycopg2", "psycopg"})
_ASYNCHRONOUS: Final = frozenset({"asyncpg", "psycopg_async", "aiopg"})


@dataclass(frozen=True)
class Database:
    """A database, and the source of its URL. Its text never contains the password.

    `note` is what a user should know about the choice, such as a variable whose name is misspelled.
    """

    url: URL
    source: str
    note: str = field(default="", compare=False)

    def __str__(self) -> str:
        # libpq reads the variables where the URL says nothing.
        query, environment = self.url.query, os.environ
        host = query.get("host") or self.url.host or environment.get("PGHOST") or "the default socket"
        port = query.get("port") or self.url.port or environment.get("PGPORT")
        role = self.url.username or query.get("user") or environment.get("PGUSER")
        name = self.url.database or query.get("dbname") or environment.get("PGDATABASE") or role or ""
        return f"{_address(role, host, port, name)} ({self.source})"

    def line(self, connection: Connection | None = None) -> str:
        """What a command says about its database, in one line; with a connection, where that really leads."""
        if self.source == EMBEDDED:
            said = f"embedded PostgreSQL at {self.url.query.get('host') or self.url.host} (no URL is given)"
        else:
            # libpq knows which host it took, and what it read from a service file; other drivers do not tell.
            reached = getattr(connection and connection.connection.dbapi_connection, "info", None)
            try:
                where = _address(reached.user, reached.host, reached.port, reached.dbname)  # type: ignore[union-attr]
                said = f"{where} ({self.source})"
            except AttributeError:
                said = str(self)
        return f"Database: {said}{f'. {self.note}' if self.note else ''}"

    @property
    def is_behind_transaction_pooler(self) -> bool:
        """Whether the port is that of Supabase's transaction pooler, which keeps no state between transactions."""
        return self.url.port == _TRANSACTION_POOLER_PORT

    def conninfo(self) -> tuple[str, str]:
        """The connection string for libpq's programs, with all hosts and options, and separately the password.

        Raises UserError for an option that libpq does not know.
        """
        url = self.url.set(drivername="postgresql+psycopg2")
        _, parameters = url.get_dialect()().create_connect_args(url)
        password = str(parameters.pop("password", ""))
        try:
            return psycopg2.extensions.make_dsn(**parameters), password
        except psycopg2.Error as error:
            raise cannot_connect(str(self), error) from error

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Connect without a pool. Raises UserError if that fails, or the server is too old."""
        if self.url.get_driver_name() in _ASYNCHRONOUS:
            raise UserError(
                f"{self.source}: {self.url.drivername}:// is an asynchronous driver, but migrations run synchronously:"
                " give postgresql:// or postgresql+psycopg:// here, such as in OBLIVION_DATABASE_URL. The service may"
                " keep its own driver."
            )
        # Whoever waits for us reads this name in pg_stat_activity, unless the URL gives another.
        named = {"fallback_application_name": APPLICATION} if self.url.get_driver_name() in LIBPQ else {}
        try:
            engine = create_engine(self.url, poolclass=NullPool, connect_args=named)
        except (NoSuchModuleError, ImportError) as error:
            raise UserError(
                f"No driver for {self.url.drivername}:// ({error}): install it, or use postgresql:// for psycopg2."
            ) from error
        with connected(engine, str(self)) as connection:
            yield connection


@contextmanager
def connected(engine: Engine, name: str) -> Iterator[Connection]:
    """Connect `engine` in READ COMMITTED; messages call it `name`. Raises UserError as `Database.connect()`."""
    if engine.dialect.name != "postgresql":
        raise UserError(f"{name} is {engine.dialect.name}: oblivion_schema runs on PostgreSQL.")
    try:
        # In REPEATABLE READ it would not see what the deployer before it has changed; autocommit cannot roll back.
        connection = engine.execution_options(isolation_level="READ COMMITTED").connect()
    except (DBAPIError, ValueError) as error:
        raise cannot_connect(name, error) from error
    with connection:
        require_supported_server(connection, name)
        yield connection


def hear_interrupts() -> None:
    """Let Ctrl-C cancel a running statement of psycopg2. This changes the whole process: for the command line only."""
    psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)


def require_supported_server(connection: Connection, name: str) -> None:
    """Raise UserError if the server is older than the oldest one that this package is tested on."""
    found = connection.dialect.server_version_info or ()
    if int(next(iter(found), 0)) < OLDEST_POSTGRESQL:
        raise UserError(
            f"{name} runs PostgreSQL {'.'.join(map(str, found))}:"
            f" oblivion_schema needs {OLDEST_POSTGRESQL} or newer. Upgrade the server."
        )


def require_own_session(connection: Connection, name: str) -> None:
    """Raise UserError behind a transaction pooler: there a lock of the session stays behind with a stranger.

    `connection` is in autocommit. Between two of its statements such a pooler gives its session to a second connection,
    or gives it another one.
    """
    look = text("SELECT pg_backend_pid()")
    seen = {connection.scalar(look)}
    with suppress(SQLAlchemyError):  # where no second connection is to be had, the first one tells alone
        other = create_engine(connection.engine.url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect()
        with other:
            for _ in range(_LOOKS):
                seen |= {connection.scalar(look)}
                if other.scalar(look) in seen:
                    seen |= {None}
    if len(seen) > 1:
        raise UserError(
            f"{name} is a transaction pooler, which gives a session to others between two transactions, with the lock"
            " that this command holds: connect directly, or to a pooler in session mode (Supabase: port 5432)."
        )


def require_read_committed(connection: Connection, name: str) -> None:
    """Raise UserError if a caller's connection is not in READ COMMITTED.

    Autocommit could not roll back; other levels would not see what the deployer before it has changed.
    """
    began = connection.in_transaction()
    level = connection.scalar(text("SHOW transaction_isolation"))
    if not began:
        connection.rollback()
    dbapi_connection = connection.connection.dbapi_connection
    if dbapi_connection is not None and connection.dialect.detect_autocommit_setting(dbapi_connection):
        level = "autocommit"
    if level != "read committed":
        raise UserError(f"{name} is in {level}: give a connection in READ COMMITTED, or an Engine.")


def parse(url: str, source: str) -> Database:
    """Parse a URL; postgres:// and postgresql:// mean psycopg2. Raises UserError, which never shows the URL."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _malformed(source) from None  # the cause would show the URL
    # After an unescaped @ in a password the rest of the password would become the host, which messages show.
    if url.count("@") > 1:
        raise _malformed(source)
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg2")
    elif parsed.get_backend_name() != "postgresql":
        raise UserError(f"{source} names {parsed.drivername}://: oblivion_schema runs on PostgreSQL, postgresql://...")
    return Database(parsed, source)


def _address(role: object, host: object, port: object, name: object) -> str:
    hosts = ",".join(host) if isinstance(host, tuple) else host
    return f"{f'{role}@' if role else ''}{hosts}{f':{port}' if port else ''}/{name}"


def _malformed(source: str) -> UserError:
    return UserError(
        f"{source} is no database URL: write postgresql://user:password@host:5432/database,"
        " and percent-encode what is not a letter or digit in the password (/ as %2F, @ as %40)."
    )
