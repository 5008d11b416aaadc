"""Find the database's URL, show it without its password, and connect to it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import psycopg2.extensions
import psycopg2.extras
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.pool import NullPool

from oblivion_schema.errors import UserError, cannot_connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import URL, Connection, Engine

VARIABLES: Final = ("OBLIVION_DATABASE_URL", "DATABASE_URL")
OLDEST_POSTGRESQL: Final = 15
EMBEDDED: Final = "Embedded PostgreSQL"
_TRANSACTION_POOLER_PORT: Final = 6543
TRANSACTION_POOLER: Final = "Port 6543 is Supabase's transaction pooler; use port 5432, direct or session mode."
_ASYNCHRONOUS: Final = frozenset({"asyncpg", "psycopg_async", "aiopg"})


@dataclass(frozen=True)
class Database:
    """A database, and the source of its URL. Its text never contains the password."""

    url: URL
    source: str

    def __str__(self) -> str:
        host = self.url.query.get("host") or self.url.host or "the default socket"
        port = self.url.query.get("port") or self.url.port
        user = f"{self.url.username}@" if self.url.username else ""
        name = self.url.database or self.url.username or ""
        return f"{user}{host}{f':{port}' if port else ''}/{name} ({self.source})"

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
                f"{self.url.drivername}:// is an asynchronous driver, but migrations run synchronously:"
                " give postgresql:// or postgresql+psycopg:// here. The service may keep its own driver."
            )
        try:
            engine = create_engine(self.url, poolclass=NullPool)
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


def find(x_url: str | None, ini_url: str | None, environment: Mapping[str, str]) -> Database | None:
    """The first URL that is given: by `-x url=`, the environment, or alembic.ini. None means the embedded server."""
    sources = (
        ("-x url", x_url),
        *((name, environment.get(name)) for name in VARIABLES),
        ("sqlalchemy.url in alembic.ini", ini_url),
    )
    return next((parse(url, source) for source, url in sources if url), None)


def find_or_start(x_url: str | None, ini_url: str | None, environment: Mapping[str, str]) -> Database:
    """As `find()`; without a URL, start the embedded server. Raises UserError if it is not installed either."""
    database = find(x_url, ini_url, environment)
    if database is None:
        from oblivion_schema.server import embedded

        if not embedded.is_installed():
            raise UserError(f"No database URL: set {VARIABLES[0]}, or install oblivion-schema[embedded].")
        database = Database(embedded.url(embedded.start(embedded.data_directory())), EMBEDDED)
    return database


def _malformed(source: str) -> UserError:
    return UserError(
        f"{source} is no database URL: write postgresql://user:password@host:5432/database,"
        " and percent-encode what is not a letter or digit in the password (/ as %2F, @ as %40)."
    )
