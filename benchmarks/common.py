"""Shared by the benchmarks: a server for one run, databases on it, pgbench, alternating pairs, and a progress bar."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg2

from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sqlalchemy import URL

PROJECT: Final = Path(__file__).parent.parent
SCRIPTS: Final = ("calls", "presence_first", "presence_fixed", "billing", "billing_trigger")
CLIENTS: Final = 8
WARM: Final = 20  # transactions until a connection has cached its plans

# Statements that drop indexes and foreign keys before many rows are inserted, and statements that create them again.
TAKE_AWAY: Final = """
SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname),
  format('ALTER TABLE %s ADD CONSTRAINT %I %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
FROM pg_constraint WHERE conrelid = 'token_usage'::regclass AND contype = 'f'
UNION ALL
SELECT format('DROP INDEX %I', indexname), indexdef FROM pg_indexes
WHERE tablename IN ('token_usage', 'call_sessions') AND indexname NOT LIKE '%_pkey'
"""


def libpq(url: URL) -> str:
    """`url` as text for psycopg2."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def cursor(url: URL) -> Iterator[psycopg2.extensions.cursor]:
    """A cursor in autocommit."""
    connection = psycopg2.connect(libpq(url))
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()


def show(done: int, of: int, what: str) -> None:
    """Show the progress bar: `done` steps of `of`."""
    filled = 40 * done // of
    end = "\n" if done == of else ""
    sys.stderr.write(f"\r[{'#' * filled}{' ' * (40 - filled)}] {100 * done // of:3} % {what:<60}{end}")
    sys.stderr.flush()


class Progress:
    """The progress bar; each call is one step."""

    def __init__(self, of: int) -> None:
        self.done, self.of = 0, of

    def __call__(self, what: str) -> None:
        """Advance the bar by one step."""
        self.done += 1
        show(self.done, self.of, what)


@contextmanager
def run_on(url: URL | None = None, settings: str = "") -> Iterator[tuple[Path, URL]]:
    """A temporary folder, and the maintenance database of the server at `url`; without it, of an embedded server.

    `settings` are lines of postgresql.conf for the embedded server.
    """
    home = Path(tempfile.mkdtemp(prefix="oblivion-schema-benchmark-"))
    home.chmod(0o755)
    server = None
    try:
        if url is None:
            server = embedded.start(home / "server", settings=settings, at_exit="delete")
            url = embedded.url(server)
        yield home, url
    finally:
        if server:
            server.cleanup()
        shutil.rmtree(home)


@contextmanager
def names_free(maintenance: URL, names: Sequence[str]) -> Iterator[dict[str, URL]]:
    """URLs for new databases: databases of these names are dropped before and after."""
    urls = {name: maintenance.set(database=f"benchmark_{name}") for name in names}

    def drop() -> None:
        with cursor(maintenance) as sql:
            for url in urls.values():
                sql.execute(f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)")

    drop()
    try:
        yield urls
    finally:
        drop()


def build_by_hand(sql: psycopg2.extensions.cursor) -> None:
    """Build the hand-made schema with the old scripts."""
    for name in SCRIPTS:
        sql.execute((PROJECT / "tests" / "legacy" / f"{name}.sql").read_text(encoding="utf-8"))


def in_turn(
    ours: Callable[[], float], base: Callable[[], float], rounds: int, done: Callable[[], None]
) -> list[tuple[float, float]]:
    """Measure both in alternation, and return the pairs; a first pair warms up and is not returned."""
    pairs = []
    for _ in range(rounds + 1):
        pairs.append((ours(), base()))
        done()
    return pairs[1:]


class Database:
    """A database, with pgbench."""

    def __init__(self, url: URL, home: Path) -> None:
        self.url, self.home = url, home

    def query(self, statement: str, values: Sequence[object] | Mapping[str, object] | None = None) -> tuple[int, ...]:
        """Execute a statement, and return the integers of its first row; empty without rows."""
        with cursor(self.url) as sql:
            sql.execute(statement, values)
            return tuple(map(int, sql.fetchone() or ())) if sql.description else ()

    def command(self, script: Sequence[str], transactions: int, *options: str, clients: int = CLIENTS) -> list[str]:
        """The command that runs a script `transactions` times in each client, and logs when each transaction ends."""
        path = self.home / f"{self.url.database}.sql"
        path.write_text("\n".join(script) + "\n", encoding="utf-8")
        program = [str(embedded.binary("pgbench") or "pgbench"), "-n", "-c", str(clients), "-j", "2", "-D", "n=0"]
        log = ["-l", "--log-prefix", str(self.home / f"{self.url.database}.log")]
        return [*program, *log, "-t", str(transactions), "-f", str(path), *options, libpq(self.url)]

    def ends(self) -> list[list[float]]:
        """For each client of the last command the times when its transactions ended; removes the log."""
        times: dict[str, list[float]] = {}
        for path in self.home.glob(f"{self.url.database}.log.*"):
            for line in path.read_text(encoding="utf-8").splitlines():
                client, _, _, _, seconds, microseconds, *_ = line.split()
                times.setdefault(client, []).append(int(seconds) + int(microseconds) / 1e6)
            path.unlink()
        return list(times.values())

    def pgbench(self, script: Sequence[str], transactions: int, *options: str, clients: int = CLIENTS) -> float:
        """Run a script `transactions` times in each client; returns transactions per second of all clients together.

        The first `WARM` transactions of each client are not counted.
        """
        command = self.command(script, transactions, *options, clients=clients)
        ended = subprocess.run(command, check=False, capture_output=True, text=True)
        if ended.returncode or f"processed: {clients * transactions}/" not in ended.stdout:
            sys.exit(ended.stderr or ended.stdout)
        return sum((transactions - WARM) / (ends[-1] - ends[WARM - 1]) for ends in self.ends())

    def size(self, *tables: str) -> int:
        """Bytes of the tables with their indexes."""
        return sum(self.query("SELECT pg_total_relation_size(%s::regclass)", (table,))[0] for table in tables)
