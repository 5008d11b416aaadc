"""The longest wait of clients while a big hand-made database is upgraded. Shorter is better.

    python benchmarks/adoption.py [--rows 10000000] [--accounts 100000] [--nulls 100]

It runs on the embedded PostgreSQL, in a temporary folder (TMPDIR; about 700 bytes for each row). The old scripts create
a database with that many rows of usage and a tenth as many calls, a few of them with a NULL. One copy is upgraded at
once, the other one after `oblivion-schema prepare`. Meanwhile one client inserts usage, as the deployed pages do, and
another one reads one account of user_token_summary. The result is the longest time of any of their statements.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from common import PROJECT, TAKE_AWAY, build_by_hand, cursor, libpq, run_on, show

if TYPE_CHECKING:
    from sqlalchemy import URL

AT_ONCE = 500_000

ACCOUNTS = "INSERT INTO user_accounts (user_id) SELECT 'user_' || n FROM generate_series(0, %s - 1) AS n"
USAGE = """
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, "timestamp")
SELECT 'user_' || n %% %s, n, n %% 7, 'video', n %% 2 = 0,
  CASE WHEN n %% %s > 0 THEN '2026-01-01'::timestamptz + n * interval '1 second' END
FROM generate_series(%s, %s) AS n
"""
CALLS = """
INSERT INTO call_sessions (room_id, mode, user_id, start_time, end_time, used_turn)
SELECT 'room', 'video', 'user_' || n %% %s, '2026-01-01'::timestamptz + n * interval '10 seconds',
  CASE WHEN n %% 1000 > 0 THEN '2026-01-01'::timestamptz + n * interval '11 seconds' END,
  CASE WHEN n %% %s > 0 THEN n %% 2 = 0 END
FROM generate_series(%s, %s) AS n
"""
CLIENTS = {
    "insert": """
        INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)
        VALUES ('user_7', 'now', 1, 'video', true) RETURNING *
    """,
    "read": "SELECT * FROM user_token_summary WHERE user_id = 'user_7'",
}


def fill(url: URL, rows: int, accounts: int, nulls: int) -> None:
    """Create and fill the hand-made database."""
    with cursor(url) as sql:
        build_by_hand(sql)
        sql.execute(TAKE_AWAY)
        pairs = sql.fetchall()
        for drop, _ in pairs:
            sql.execute(drop)
        sql.execute(ACCOUNTS, (accounts,))
        inserts = [("rows of usage", USAGE, rows), ("calls", CALLS, rows // 10)]
        parts = [
            (
                f"{what} to {min(first + AT_ONCE, of):,}",
                insert,
                (accounts, of // nulls if nulls else of + 1, first + 1, min(first + AT_ONCE, of)),
            )
            for what, insert, of in inserts
            for first in range(0, of, AT_ONCE)
        ]
        works = [*parts, *((back[:60], back, None) for _, back in pairs), ("VACUUM ANALYZE", "VACUUM ANALYZE", None)]
        for place, (what, statement, values) in enumerate(works):
            show(place, len(works), what)
            sql.execute(statement, values)
        show(len(works), len(works), "made")


class Client(threading.Thread):
    """A client that runs one statement again and again; `longest` is its longest time in seconds."""

    def __init__(self, url: URL, statement: str) -> None:
        super().__init__()
        self.url, self.statement = url, statement
        self.longest = 0.0
        self.stopped = threading.Event()
        self.start()

    def run(self) -> None:
        """Run the statement until `stopped` is set."""
        with cursor(self.url) as sql:
            sql.execute(self.statement)  # not counted: a new connection fills its caches
            while not self.stopped.is_set():
                start = time.perf_counter()
                sql.execute(self.statement)
                self.longest = max(self.longest, time.perf_counter() - start)
                time.sleep(0.002)


def observed(url: URL, *command: str) -> tuple[float, dict[str, float]]:
    """Seconds of a command, for the whole process, and the longest seconds of each client meanwhile."""
    clients = {name: Client(url, statement) for name, statement in CLIENTS.items()}
    time.sleep(1)
    start = time.perf_counter()
    program = [sys.executable, "-m", "oblivion_schema", "-x", f"url={libpq(url)}", *command]
    ended = subprocess.run(program, check=False, capture_output=True, text=True, cwd=PROJECT)
    seconds = time.perf_counter() - start
    for client in clients.values():
        client.stopped.set()
        client.join()
    if ended.returncode:
        sys.exit(ended.stderr)
    return seconds, {name: client.longest for name, client in clients.items()}


def relfilenode(url: URL) -> int:
    """The number of the file with the rows of usage: a new number means that the table was rewritten."""
    with cursor(url) as sql:
        sql.execute("SELECT pg_relation_filenode('token_usage'), pg_total_relation_size('token_usage')")
        return int((sql.fetchone() or (0,))[0])


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of usage")
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--nulls", type=int, default=100, help="rows of each table with a NULL, which is filled")
    options = parser.parse_args()
    rows = options.rows

    with run_on(settings="fsync = off\nmax_wal_size = 8GB\n") as (_, maintenance):
        plain, prepared = (maintenance.set(database=name) for name in ("plain", "prepared"))
        with cursor(maintenance) as sql:
            sql.execute("CREATE DATABASE plain")
            fill(plain, rows, options.accounts, options.nulls)
            sql.execute("CREATE DATABASE prepared TEMPLATE plain STRATEGY file_copy")
            sql.execute("CHECKPOINT")

        print(
            f"{rows:,} rows of usage, {rows // 10:,} calls, {options.accounts:,} accounts;"
            f" {options.nulls} rows of usage and of calls have a NULL; longest waits in ms"
        )
        print(f"{'':<42} {'seconds':>8} {'insert':>8} {'read':>8}   token_usage rewritten")
        waits = {}
        for name, url, command in (
            ("upgrade head", plain, ("upgrade", "head")),
            ("prepare", prepared, ("prepare",)),
            ("upgrade head after prepare", prepared, ("upgrade", "head")),
            ("nothing to upgrade", prepared, ("upgrade", "head")),
        ):
            before = relfilenode(url)
            seconds, waits[name] = observed(url, *command)
            same = "no" if relfilenode(url) == before else "YES"
            insert, read = (1000 * waits[name][client] for client in CLIENTS)
            print(f"{name:<42} {seconds:8.2f} {insert:8.0f} {read:8.0f}   {same}", flush=True)
        for client in CLIENTS:
            ratio = waits["upgrade head"][client] / waits["upgrade head after prepare"][client]
            print(f"{f'wait of {client}: plain / prepared':<42} {ratio:8.1f} x")


if __name__ == "__main__":
    main()
