"""What it costs, and what it saves, to meter pages that bill by themselves.

    python benchmarks/pages.py [--rounds 3] [--calls 5000] [--url postgresql://...]

It takes some three minutes. It runs on the embedded PostgreSQL in a temporary folder (TMPDIR), or on the throw-away
server of `--url`, as its superuser.

First the whole flow of a page in two databases of this package that alternate, one whose pages are metered, and one
whose pages are trusted: insert a call, set its end, read the balance, write it back, log the usage. 8 clients do it
with pgbench, each request a transaction of role anon, as PostgREST sends them, and without what PostgREST adds. Each
ratio is the median of the pairs, after a warm-up pair, with the least and the greatest.

Then the tokens that are lost: the calls of 20 accounts are ten minutes long, and 8 clients end and bill them at the
same time, each request until it is answered, while sessions are killed. What was due is compared with what was taken.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

import psycopg2
from billing import AFTER_REQUEST, BEFORE_REQUEST, CLOCK, CPU, Part
from calls import ACCOUNTS, ACCOUNTS_ROWS, NEXT_CALL, ROUND, TIDY, Calls, options
from common import CLIENTS, WARM, Progress, cursor, libpq, names_free, run_on
from cpu import Rounds, Run, alternate
from sqlalchemy import make_url

from oblivion_schema import upgrade

if TYPE_CHECKING:
    from sqlalchemy import URL

NAME: Final = "benchmark of pages"
PAYERS: Final = 20  # accounts, so that the calls of one end together
LENGTH: Final = 10  # started minutes of each call, at 2 tokens

FLOW: Final = (
    """INSERT INTO call_sessions (id, room_id, user_id, mode, used_turn, start_time, credit_cost)
VALUES (md5(:i::text)::uuid, 'room', 'user_' || :user, 'video', false, now(), 0) RETURNING id;""",
    "UPDATE call_sessions SET end_time = now(), used_turn = false WHERE id = md5(:i::text)::uuid RETURNING *;",
    r"SELECT tokens_remaining AS tokens FROM user_accounts WHERE user_id = 'user_' || :user \gset",
    r"""\set tokens greatest(0, :tokens - 2)
UPDATE user_accounts SET tokens_remaining = :tokens WHERE user_id = 'user_' || :user;""",
    """INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)
VALUES ('user_' || :user, md5(:i::text)::uuid, 2, 'video', false, 1);""",
)


class Site(Calls):
    """A database whose pages are `metered` or trusted."""

    def load(self, calls: int) -> None:
        """Insert the accounts."""
        self.query(ACCOUNTS_ROWS)
        self.query("VACUUM (ANALYZE)")
        self.calls = calls

    def flow(self, share: int, *, postgrest: bool) -> Rounds:
        """The flow of a page; each client has `share` calls."""
        before, after = ([BEFORE_REQUEST], [AFTER_REQUEST]) if postgrest else ([], [])
        script = (*NEXT_CALL, *(line for request in FLOW for line in (*before, request, *after)))
        first, self.calls = self.calls + 1, self.calls + CLIENTS * (share + WARM)
        with cursor(self.url) as sql:
            for statement in TIDY:
                sql.execute(statement)
        words = options(first=first, share=share + WARM, accounts=ACCOUNTS)
        rounds = max(1, share // ROUND)
        # The clients are pages from the beginning of their sessions on.
        page = self.url.update_query_dict({"options": "-crole=anon"})
        run = Rounds(self, script, share // rounds, rounds, *words)
        run.command[-1] = libpq(page)
        return run


class Loss(NamedTuple):
    """What came of calls that ended together."""

    due: int
    taken: int
    logged: int
    killed: int
    seconds: float

    def __str__(self) -> str:
        lost = self.due - self.taken
        return (
            f"due {self.due:>8,}  taken {self.taken:>8,}  lost {lost:>8,} ({100 * lost / self.due:4.1f} %)"
            f"  logged {self.logged:>8,}  sessions killed {self.killed:>4}  {self.seconds:5.1f} s"
        )


class Page:
    """A page that sends each request until it is answered."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.connection: psycopg2.extensions.connection | None = None

    def send(self, sql: str, *values: object) -> list[tuple[object, ...]]:
        """Rows of a request."""
        while True:
            try:
                if self.connection is None:
                    self.connection = psycopg2.connect(libpq(self.url), application_name=NAME, options="-c role=anon")
                    self.connection.autocommit = True
                with self.connection.cursor() as request:
                    request.execute(sql, values)
                    return request.fetchall() if request.description else []
            except psycopg2.OperationalError:
                self.connection = None

    def end(self, call: str, user: str) -> None:
        """End and bill a call."""
        self.send("UPDATE call_sessions SET end_time = now(), used_turn = false WHERE id = %s RETURNING *", call)
        [(tokens,)] = self.send("SELECT tokens_remaining FROM user_accounts WHERE user_id = %s", user)
        left = max(0, int(str(tokens)) - 2 * LENGTH)
        self.send("UPDATE user_accounts SET tokens_remaining = %s WHERE user_id = %s", left, user)
        self.send(
            "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)"
            " VALUES (%s, %s, %s, 'video', false, %s)",
            *(user, call, 2 * LENGTH, 60 * LENGTH - 30),
        )


def loss(url: URL, calls: int, seed: int) -> Loss:
    """End `calls` at once in the database of `url`, while sessions are killed."""
    back = f"interval '{60 * LENGTH - 30} seconds'"
    chance, over = random.Random(seed), threading.Event()  # noqa: S311 - no secret
    killed = 0
    with cursor(url) as sql:
        sql.execute(
            "INSERT INTO user_accounts (user_id, tokens_remaining)"
            " SELECT 'payer ' || n, 10000000 FROM generate_series(1, %s) AS n",
            [PAYERS],
        )
        sql.execute("SET ROLE anon")
        sql.execute(
            "INSERT INTO call_sessions (room_id, user_id, mode, used_turn, start_time, credit_cost)"
            " SELECT 'room', 'payer ' || 1 + n %% %s, 'video', false, now(), 0 FROM generate_series(1, %s) AS n"
            " RETURNING id::text, user_id",
            [PAYERS, calls],
        )
        begun = sql.fetchall()
        sql.execute("RESET ROLE")
        sql.execute("SET session_replication_role = replica")
        sql.execute(f"UPDATE call_sessions SET start_time = start_time - {back}")  # noqa: S608 - ours
        sql.execute(f"UPDATE oblivion.call_meters SET started_at = started_at - {back}, seen_at = seen_at - {back}")  # noqa: S608
        sql.execute("RESET session_replication_role")
        chance.shuffle(begun)

        def work(mine: list[tuple[str, str]]) -> None:
            page = Page(url)
            for call, user in mine:
                page.end(call, user)

        def kill() -> None:
            nonlocal killed
            with cursor(url) as killer:
                while not over.wait(chance.uniform(0.02, 0.1)):
                    killer.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
                        " AND datname = current_database() ORDER BY random() LIMIT 1",
                        [NAME],
                    )
                    killed += killer.rowcount

        start = time.perf_counter()
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            killer = pool.submit(kill)
            done = [pool.submit(work, begun[number::CLIENTS]) for number in range(CLIENTS)]
            try:
                for client in done:
                    client.result()
            finally:
                over.set()
            killer.result()
        seconds = time.perf_counter() - start
        sql.execute("SELECT settle_calls(1000000)")
        sql.execute(
            "SELECT sum(10000000 - tokens_remaining),"
            " (SELECT sum(tokens_used) FROM token_usage WHERE user_id LIKE 'payer %')"
            " FROM user_accounts WHERE user_id LIKE 'payer %'"
        )
        [(taken, logged)] = sql.fetchall()
    return Loss(2 * LENGTH * calls, int(taken), int(logged), killed, seconds)


def main() -> None:
    """Run both parts and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="measured pairs; default: 3")
    parser.add_argument("--share", type=int, default=350, help="calls of each client in a round; default: 350")
    parser.add_argument("--calls", type=int, default=5000, help="calls that end at once; default: 5000")
    parser.add_argument("--url", type=make_url, help="a throw-away server, as its superuser")
    given = parser.parse_args()
    progress = Progress(2 * (given.rounds + 1) + 2)
    names = ("metered", "trusted", "loss_metered", "loss_trusted")
    with run_on(given.url) as (home, maintenance), names_free(maintenance, names) as urls:
        with cursor(maintenance) as sql:
            for name in names:
                sql.execute(f"CREATE DATABASE {urls[name].database}")
                upgrade(urls[name], demo=False, pages="metered" if name.endswith("metered") else "trusted")
        metered, trusted = Site(urls["metered"], home), Site(urls["trusted"], home)
        for site in (metered, trusted):
            site.load(0)

        def pair(*, postgrest: bool) -> tuple[Run, Run]:
            return alternate(
                metered.flow(given.share, postgrest=postgrest), trusted.flow(given.share, postgrest=postgrest)
            )

        bounds: dict[str, float | None] = {CLOCK: 0.8, CPU: 0.8}
        parts = [
            Part("flow of a page, as PostgREST sends it: metered / trusted", (), lambda: pair(postgrest=True), bounds),
            Part("flow of a page, requests alone: metered / trusted", (), lambda: pair(postgrest=False), bounds),
        ]
        lines: dict[str, list[str]] = {}
        for part in parts:
            for section, line in part.run(given.rounds, progress):
                lines.setdefault(section, []).append(line)
        losses = {}
        for name in ("metered", "trusted"):
            losses[name] = loss(urls[f"loss_{name}"], given.calls, seed=1)
            progress(f"tokens lost, {name}")
        for section, its in lines.items():
            sys.stdout.write("\n".join([section, *its, ""]))
        sys.stdout.write(f"{given.calls:,} calls of {PAYERS} accounts end at once, {CLIENTS} clients\n")
        for name, found in losses.items():
            sys.stdout.write(f"{name:<8} {found}\n")
        if losses["metered"].due != losses["metered"].taken:
            sys.exit("Metered calls lost tokens, or were billed twice.")


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main()
