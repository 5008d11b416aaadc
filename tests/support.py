"""What several test modules use: the command line in this process, pg_dump, and the server's databases."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, func, make_url, select, true

from oblivion_schema import cli, metadata, testing
from oblivion_schema.declare.sql import statements_of
from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT: Final = Path(__file__).parent.parent
REVISIONS: Final = sorted(path.name[:3] for path in (PROJECT / "alembic" / "versions").glob("*.py"))
SERVER_VARIABLE: Final = "OBLIVION_TEST_DATABASE_URL"
QUICK_VARIABLE: Final = "OBLIVION_TEST_QUICK"
NAMES_IT: Final = "Database: "
temporary_home: Final = testing.temporary_home
API_ROLES: Final = ("anon", "authenticated", "service_role")
ROWS_OF_TWO_USERS: Final = "".join(
    f"""
    INSERT INTO user_accounts (user_id, tokens_remaining, email) VALUES ('{user}', 50, '{user}@example.org');
    INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('room of {user}', '{user}', 'video');
    INSERT INTO call_sessions (room_id, user_id, mode, end_time, credit_cost)
    VALUES ('room of {user}', '{user}', 'voice-only', now() + interval '61 seconds', 0.4);
    INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)
    VALUES ('{user}', 'call of {user}', 2, 'video', false), ('{user}', 'call of {user}', 4, 'video', false);
    INSERT INTO user_presence (host_id, room_id, room_token)
    VALUES ('{user}', 'room of {user}', 'token of {user}');
    """
    for user in ("mine", "theirs")
)


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit status and what it printed; `named` are the databases that it named on stderr."""

    status: int
    out: str
    err: str
    named: tuple[str, ...] = ()

    @property
    def error(self) -> str:
        """The one line that the command printed of its failure."""
        assert self.status != 0, f"it succeeded: {self.out}{self.err}"
        lines = [line for line in self.err.splitlines() if "FAILED:" in line]
        assert len(lines) == 1, f"not one line: {self.err}"
        assert "Traceback" not in self.err
        assert "FAILED" not in self.out
        return lines[0]


def examples(full: int, *, quick: int) -> int:
    """A number for the full set, and one for the quick set: of examples of a property, or every how many cases."""
    return quick if QUICK_VARIABLE in os.environ else full


@contextmanager
def declared(*statements: str) -> Iterator[None]:
    """The metadata with `statements` added at its end."""

    def run(_: object, connection: Connection, **__: object) -> None:
        for sql in statements:
            if sql.strip():
                connection.exec_driver_sql(sql, execution_options={"no_parameters": True})

    event.listen(metadata, "after_create", run)
    try:
        yield
    finally:
        event.remove(metadata, "after_create", run)


def run(*arguments: str, url: URL | str | None = None) -> Result:
    """Run `oblivion-schema` with `arguments` in this process, on the database of `url`."""
    if url is not None:
        text = url if isinstance(url, str) else url.render_as_string(hide_password=False)
        arguments = ("-x", f"url={text}", *arguments)
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            cli.main(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    lines = err.getvalue().splitlines(keepends=True)
    named = [line for line in lines if line.startswith(NAMES_IT)]
    rest = "".join(line for line in lines if not line.startswith(NAMES_IT))
    return Result(status, out.getvalue(), rest, tuple(line.removeprefix(NAMES_IT).rstrip("\n") for line in named))


def spawn(*command: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start a program of its own; `python` means this one."""
    words = [sys.executable if word == "python" else str(word) for word in command]
    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        cwd=PROJECT,
        start_new_session=True,
        # A run in the background ignores Ctrl-C, and its children inherit that.
        preexec_fn=(lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) if os.name == "posix" else None,  # noqa: PLW1509
    )


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    """Wait for `condition`, which comes true soon or not at all."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.02)  # a look costs the server a session


@cache
def program(name: str) -> Path:
    """A program of PostgreSQL: the embedded one, or the server's own if that is newer, which pg_dump would refuse."""
    [(major, folder)] = query(
        make_url(os.environ[SERVER_VARIABLE]).set(drivername="postgresql+psycopg2"),
        "SELECT current_setting('server_version_num')::integer / 10000, setting FROM pg_config WHERE name = 'BINDIR'",
    )
    newer = int(str(major)) > embedded.VERSIONS[-1]
    found = Path(str(folder), name) if newer else embedded.binary(name)
    assert found is not None
    assert found.exists(), f"PostgreSQL {major} needs its own {name}"
    return found


def dump(url: URL, *, numbers: bool = True) -> str:
    """The database as pg_dump prints it, reference rows included, without what differs from run to run.

    `numbers`: the last numbers of identities, too; one that was taken in a transaction that is rolled back is not given
    again.
    """
    printed = subprocess.run(
        [program("pg_dump"), "--no-sync", "--inserts", libpq(url)], capture_output=True, text=True, check=True
    ).stdout
    printed = re.sub(r"^(\\(un)?restrict|SET|SELECT pg_catalog.set_config|--).*\n", "", printed, flags=re.MULTILINE)
    if not numbers:
        printed = re.sub(r"setval\(.*\n", "", printed)
    # When an account was opened is the one value here that a clock gives.
    printed = re.sub(r"'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\+\d\d'", "'<now>'", printed)
    return re.sub(r"\n{2,}", "\n\n", printed)


def psql(url: URL, script: str) -> None:
    """Run a script."""
    subprocess.run([program("psql"), "-Xq", "-v", "ON_ERROR_STOP=1", libpq(url)], input=script, text=True, check=True)


def libpq(url: URL) -> str:
    """`url` as libpq's programs take it."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@cache
def engine_of(url: URL) -> Engine:
    """An engine that asks the server about itself once, and holds no connection."""
    # What hstore's number is would be asked on each connection.
    options = {"use_native_hstore": False} if url.get_driver_name() == "psycopg2" else {}
    return create_engine(url, poolclass=NullPool, **options)


def execute(url: URL, sql: str) -> None:
    """Run `sql`, one or more statements, in one transaction."""
    with engine_of(url).begin() as connection:
        connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def query(url: URL, sql: str) -> list[tuple[object, ...]]:
    """Rows of one statement."""
    with engine_of(url).begin() as connection:
        return [tuple(row) for row in connection.exec_driver_sql(sql, execution_options={"no_parameters": True})]


@contextmanager
def request(url: URL, role: str, claims: str | None = None) -> Iterator[Connection]:
    """A transaction as PostgREST opens one for a request, of `role` and with the JWT's `claims`; it is rolled back."""
    engine = engine_of(url.set(username="authenticator", password="authenticator"))
    with engine.connect() as connection:
        settings = {"role": role, "request.jwt.claims": json.dumps({"role": role}) if claims is None else claims}
        for name, value in settings.items():
            connection.execute(select(func.set_config(name, value, true())))
        yield connection
        connection.rollback()


def signed_in(user_id: str) -> str:
    """The claims of a user's JWT."""
    return json.dumps({"sub": user_id, "role": "authenticated", "exp": 4102444800})


def function_sql(name: str) -> str:
    """The statement that makes the function of that qualified name, as its file has it."""
    [file] = (PROJECT / "oblivion_schema" / "tables").glob(f"*/{name}.sql")
    create, _ = statements_of(file)
    return create
