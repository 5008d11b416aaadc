"""What one server carries: the figures of docs/scale.md.

    python benchmarks/scale.py [--rounds 1] [--calls 3200] [--only REGEX] [--url postgresql://...]

It takes some three minutes, or five on a busy machine. It runs pgbench on the embedded PostgreSQL in a temporary folder
(TMPDIR), or on the throw-away server of `--url`, as its superuser; that has to take 200 connections. pgbench works on
the same machine, so a server of its own carries more.

Calls of a thousand accounts go on in one database, and as many calls of one account in another. In each run every call
is ticked once, by sessions that stay connected; before it all calls become a minute older, unless the tick shall charge
nothing. The runs of a part take turns, `--rounds` times. Each number is the median of its runs, and each ratio the
median of the ratios of a round: a slow machine slows both sides. `--only` runs the parts whose names it finds. The
parts:

- Work: CPU time of the server's processes, bytes of WAL and transaction ids, for each kind of request.
- Sessions: ticks in a second for so many sessions at once.
- Pooler: the most of these through PgBouncer in transaction mode, if it is on this machine; needs PYTHONPATH=tests.
- Hot account: calls of one account beside those of a thousand, with and without `synchronous_commit`, on this disk and
  on one whose flush takes 0.6 ms longer (`commit_delay`).
- Old snapshot: ticks while another session keeps its snapshot, as a dump does. Each run is once.
- WAL: right after a checkpoint, when pages are logged in full; and compressed.
- wal_level: on another embedded server that has `logical`; not with `--url`.
- Disk: bytes of a call of one hour.
- Ledger's index: what it keeps when charges were folded and vacuumed, and `REINDEX` did not run.
- Retention: what it costs to fold the ledger, and to delete calls that are over.

At the end the charged tokens must equal the due tokens exactly.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from billing import AFTER_REQUEST, BEFORE_REQUEST
from calls import (
    ACCOUNTS,
    ACCOUNTS_ROWS,
    END_ALL,
    END_CALL,
    NEXT_CALL,
    NUMBERED_CALLS,
    SAME_CALL,
    START_ALL,
    TICK_CALL,
    Metered,
    options,
)
from common import CLIENTS, WARM, Database, Progress, cursor, names_free, run_on
from cpu import Rounds, timed
from sqlalchemy import make_url

from oblivion_schema import upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the class, beside our function of that name
    from sqlalchemy import URL

OLD: Final = 6  # runs beside a snapshot
SESSIONS: Final = (1, 2, 4, 8, 16, 32, 64)
CONNECTIONS: Final = "max_connections = 200\n"
"""For those of the most sessions, and idle ones of the pools."""
SHORTER: Final = "oblivion.call_meters, user_accounts"
"""Tables that making calls older leaves dead rows in, or a tick."""
SLOW_DISK: Final = {"commit_delay": "600", "commit_siblings": "0"}
"""Microseconds that a session waits before each flush."""
START_CALL: Final = "SELECT * FROM start_call('user_' || :user, 'room', 'video', client_key => md5(:i::text));"
COUNTERS: Final = """
SELECT
  pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0'),
  pg_snapshot_xmax(pg_current_snapshot())::text::bigint
"""
UPDATES: Final = """
SELECT sum(n_tup_upd), sum(n_tup_hot_upd) FROM pg_stat_user_tables WHERE relid = %s::regclass
"""
FOLD_ALL: Final = "SELECT oblivion.fold_charges('infinity')"
# Charges of ten accounts in turn. Of each sixtieth call-minute the row stays, as if calls had ended one by one.
CHARGES: Final = """
INSERT INTO token_ledger (user_id, kind, tokens, balance, session_id)
SELECT 'user_' || n %% 10, 'charge', -2, 0, gen_random_uuid() FROM generate_series(1, %s) AS n
"""
FOLDED: Final = "DELETE FROM token_ledger WHERE id / 10 % 60 <> 0"
DELETE_ALL: Final = "DELETE FROM call_sessions WHERE end_time < 'infinity'"
DELETE_USAGE: Final = "DELETE FROM token_usage WHERE \"timestamp\" < 'infinity'"


class Cost(NamedTuple):
    """What a run took; all but the first for each request."""

    rate: float
    """Requests in a second."""
    cpu: float
    """Microseconds of the server's processes."""
    wal: float
    """Bytes."""
    ids: float
    """Transaction ids."""


class Site(Metered):
    """A database of this package whose calls go on."""

    def __init__(self, url: URL, home: Path) -> None:
        super().__init__(url, home)
        self.minutes = 0

    def begin(self, calls: int, accounts: int) -> None:
        """Start calls of so many accounts."""
        self.calls, self.accounts = calls, accounts
        self.query(ACCOUNTS_ROWS)
        self.query(START_ALL, {"first": 1, "last": calls, "accounts": accounts})
        self.tidy()
        self.tick()

    def age(self) -> None:
        """Make all calls a minute older: each has a minute to pay."""
        self.minutes += 1
        self.query(self.build.minute_later, {"minutes": self.minutes})
        self.query(f"VACUUM {SHORTER}")

    def requests(self, script: Sequence[str], each: int, clients: int, **variables: int) -> Cost:
        """Let each client run a script `each` times."""
        with Rounds(self, script, each, 1, *options("prepared", **variables), clients=clients) as run:
            before = self.query(COUNTERS)
            run.round()
            wal, ids = (now - then for then, now in zip(before, self.query(COUNTERS), strict=True))
            rate, cpu = run.result()
        return Cost(rate, 1e6 * (cpu or float("nan")), wal / (clients * each), ids / (clients * each))

    def tick(self, *, clients: int = CLIENTS, charges: bool = True, request: Sequence[str] = (TICK_CALL,)) -> Cost:
        """Tick each call once."""
        if charges:
            self.age()
        share = self.calls // clients
        return self.requests((*SAME_CALL, *request), share - WARM, clients, first=1, share=share)

    def start(self, each: int) -> Cost:
        """Start new calls, which are numbered after those that are ticked."""
        share = WARM + each
        script = (*NEXT_CALL, START_CALL)
        return self.requests(script, each, CLIENTS, first=1 + 10**6 * self.minutes, share=share, accounts=ACCOUNTS)

    def end(self, each: int) -> Cost:
        """End the calls that were started last."""
        share = WARM + each
        (newest,) = self.query("SELECT last_value FROM benchmark_calls")
        return self.requests(
            (*NEXT_CALL, END_CALL), each, CLIENTS, first=newest + 1 - CLIENTS * share, share=share, accounts=1
        )

    @contextmanager
    def set(self, settings: Mapping[str, str]) -> Iterator[None]:
        """Settings of the sessions that begin meanwhile."""
        for name, value in settings.items():
            self.query(f"ALTER DATABASE {self.url.database} SET {name} = {value}")
        try:
            yield
        finally:
            self.query(f"ALTER DATABASE {self.url.database} RESET ALL")


def in_turns(
    measures: Mapping[str, Callable[[], Cost]], rounds: int, progress: Callable[[str], None]
) -> dict[str, list[Cost]]:
    """Run all in turn, `rounds` times."""
    costs: dict[str, list[Cost]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            costs[name].append(measure())
            progress(name)
    return costs


def lines(costs: Mapping[str, Sequence[Cost]], base: str, ratio: str) -> Iterator[str]:
    """A line for each run; `ratio` names the field whose ratio to that of `base` comes first."""
    yield f"{'':<34} {f'{ratio}, ratio':>12} {'a second':>9} {'CPU us':>7} {'WAL bytes':>9} {'ids':>4}"
    bases = [getattr(cost, ratio) for cost in costs[base]]
    for name, measured in costs.items():
        times = statistics.median(getattr(cost, ratio) / of for cost, of in zip(measured, bases, strict=True))
        cost = Cost(*map(statistics.median, zip(*measured, strict=True)))
        yield f"{name:<34} {times:12.2f} {cost.rate:9,.0f} {cost.cpu:7.0f} {cost.wal:9,.0f} {cost.ids:4.1f}"


class Benchmark:
    """The parts; each gives the lines of its result."""

    def __init__(self, home: Path, urls: Mapping[str, URL], rounds: int, calls: int, progress: Progress) -> None:
        self.home, self.urls, self.rounds, self.calls, self.progress = home, urls, rounds, calls, progress
        self.many, self.one = Site(urls["many"], home), Site(urls["one"], home)
        for site, accounts in ((self.many, ACCOUNTS), (self.one, 1)):
            site.begin(calls, accounts)
            progress("calls")

    def work(self) -> Iterator[str]:
        """What each request costs."""
        each = self.calls // 4 // CLIENTS
        postgrest = (BEFORE_REQUEST, TICK_CALL, AFTER_REQUEST)
        hot = [0, 0]

        def nothing_due() -> Cost:
            # Of the meters, because age() writes them, too.
            before = self.many.query(UPDATES, ("oblivion.call_meters",))
            cost = self.many.tick(charges=False)
            after = self.many.query(UPDATES, ("oblivion.call_meters",))
            hot[:] = (total + now - then for total, now, then in zip(hot, after, before, strict=True))
            return cost

        measures: dict[str, Callable[[], Cost]] = {
            "tick that charges": self.many.tick,
            "tick, nothing due": nothing_due,
            "tick that charges, by PostgREST": lambda: self.many.tick(request=postgrest),
            "start": lambda: self.many.start(each),
            "end": lambda: self.many.end(each),
        }
        yield from lines(in_turns(measures, self.rounds, self.progress), "tick that charges", "cpu")
        shares = {"user_accounts": self.many.query(UPDATES, ("user_accounts",)), "oblivion.call_meters": hot}
        for table, (updates, light) in shares.items():
            yield f"{table}: {100 * light / updates:.1f} % of {updates:,} updates wrote to no index"

    def sessions(self) -> Iterator[str]:
        """Ticks by sessions."""
        measures = {str(clients): lambda clients=clients: self.many.tick(clients=clients) for clients in SESSIONS}
        yield from lines(in_turns(measures, self.rounds, self.progress), str(CLIENTS), "rate")

    def pooler(self) -> Iterator[str]:
        """Ticks through PgBouncer."""
        from pooler import pooled

        most = SESSIONS[-1]
        costs: dict[str, list[float]] = {}
        with ExitStack() as pools:
            ways: dict[str, Database] = {"direct": self.many}
            for size in (CLIENTS, most // 2):
                pool = pools.enter_context(pooled(self.many.url, "transaction", default_pool_size=str(size)))
                ways[f"a pool of {size}"] = Database(pool, self.home)
            for _ in range(self.rounds):
                for name, database in ways.items():
                    self.many.age()
                    share = self.calls // most
                    words = options("simple", first=1, share=share, accounts=ACCOUNTS)
                    rate = database.pgbench((*NEXT_CALL, TICK_CALL), share, *words, clients=most)
                    costs.setdefault(name, []).append(rate)
                    self.progress(name)
        yield f"{f'{most} sessions, simple protocol':<34} {'rate, ratio':>12} {'a second':>9}"
        for name, rates in costs.items():
            times = statistics.median(rate / base for rate, base in zip(rates, costs["direct"], strict=True))
            yield f"{name:<34} {times:12.2f} {statistics.median(rates):9,.0f}"

    def hot(self) -> Iterator[str]:
        """One account, and what a commit waits for."""
        off = {"synchronous_commit": "off"}

        def tick(site: Site, settings: Mapping[str, str]) -> Callable[[], Cost]:
            def measure() -> Cost:
                with site.set(settings):
                    return site.tick()

            return measure

        ways: dict[str, Mapping[str, str]] = {"": {}, ", slow disk": SLOW_DISK, ", synchronous_commit off": off}
        sites = {"1,000 accounts": self.many, "1 account": self.one}
        measures = {f"{name}{way}": tick(site, ways[way]) for way in ways for name, site in sites.items()}
        measures["1 account, 64 sessions"] = lambda: self.one.tick(clients=SESSIONS[-1])
        yield from lines(in_turns(measures, self.rounds, self.progress), "1,000 accounts", "rate")

    def snapshot(self) -> Iterator[str]:
        """An old snapshot."""
        for name, site, times in (("1,000 accounts", self.many, 2), ("1 account", self.one, OLD)):
            runs = {f"{name}, no snapshot": [site.tick()]}
            site.query("VACUUM FULL user_accounts")
            size = site.size("user_accounts")
            with cursor(site.url) as other:
                other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
                other.execute("SELECT FROM user_accounts")
                for number in range(times):
                    runs[f"{name}, after {number * self.calls:,} ticks"] = [site.tick()]
                    self.progress(name)
            yield from lines(runs, f"{name}, no snapshot", "cpu")
            more = (site.size("user_accounts") - size) / (times * self.calls)
            yield f"each tick made user_accounts {more:.0f} bytes bigger"
            site.query("VACUUM FULL user_accounts")

    def wal(self) -> Iterator[str]:
        """Bytes of WAL."""

        def checkpoint(settings: Mapping[str, str]) -> Cost:
            self.many.age()
            self.many.query("CHECKPOINT")
            with self.many.set(settings):
                return self.many.tick(charges=False)

        measures: dict[str, Callable[[], Cost]] = {
            "no checkpoint": self.many.tick,
            "right after a checkpoint": lambda: checkpoint({}),
            "the same, wal_compression = on": lambda: checkpoint({"wal_compression": "on"}),
        }
        yield from lines(in_turns(measures, self.rounds, self.progress), "no checkpoint", "wal")

    def logical(self) -> Iterator[str]:
        """The other wal_level, on another server."""
        with run_on(None, "wal_level = logical\n") as (home, maintenance), names_free(maintenance, ["logical"]) as urls:
            build(maintenance, urls)
            other = Site(urls["logical"], home)
            other.begin(self.calls, ACCOUNTS)
            self.progress("calls")
            measures: dict[str, Callable[[], Cost]] = {"replica": self.many.tick, "logical": other.tick}
            yield from lines(in_turns(measures, self.rounds, self.progress), "replica", "wal")

    def disk(self) -> Iterator[str]:
        """Bytes of a call of one hour."""
        database = Metered(self.urls["disk"], self.home)
        sizes, folded = database.hours(self.calls // 8)
        self.progress("bytes")
        total = sum(sizes.values())
        less = total - sizes["token_ledger"] + (folded or 0)
        yield f"{less / total:.2f}: {less:,} bytes when its charges are folded, of {total:,}"
        yield ", ".join(f"{table} {size:,}" for table, size in sizes.items()) + f"; token_ledger folded {folded:,}"

    def index(self) -> Iterator[str]:
        """Bytes of the ledger's table and its index that folding does not give back."""
        rows = 20 * self.calls
        ledger = Database(self.urls["index"], self.home)

        def sizes() -> tuple[int, ...]:
            return ledger.query("SELECT pg_relation_size('token_ledger'), pg_relation_size('token_ledger_pkey')")

        yield f"{f'after {rows:,} charges of 10 accounts':<34} {'table':>12} {'index':>9} bytes"
        for day in range(1, 4):
            ledger.query(CHARGES, (rows,))
            ledger.query(FOLDED)
            ledger.query("VACUUM token_ledger")
            table, index = sizes()
            yield f"{f'folded {day} times':<34} {table:12,} {index:9,}"
            self.progress("ledger")
        ledger.query("REINDEX INDEX CONCURRENTLY token_ledger_pkey")
        table, index = sizes()
        yield f"{'after REINDEX':<34} {table:12,} {index:9,}"

    def retention(self) -> Iterator[str]:
        """What it costs to get rid of rows; the last part, because it does."""
        many = self.many
        many.query(END_ALL, {"first": 1, "last": self.calls})
        yield many.check()
        (deltas,) = many.query("SELECT count(*) FROM oblivion.usage_deltas")
        (rows,) = many.query("SELECT count(*) FROM token_ledger")
        (calls,) = many.query("SELECT count(*) FROM call_sessions")
        (logged,) = many.query("SELECT count(*) FROM token_usage")
        works = {
            "fold a delta of the roll-ups": ("SELECT oblivion.fold_usage(2147483647)", deltas),
            "fold a row of the ledger": (FOLD_ALL, rows),
            "delete a row of usage": (DELETE_USAGE, logged),
            "delete a call": (DELETE_ALL, calls),
        }
        for name, (statement, amount) in works.items():
            work = timed(many, partial(_execute, statement), amount)
            self.progress(name)
            yield f"{name:<34} {1e6 * (work.cpu or 0):8.1f} us of CPU, {1e6 / work.rate:8.1f} us; {amount:,} rows"
            if statement == FOLD_ALL:
                (left,) = many.query("SELECT count(*) FROM token_ledger")
                again = timed(many, partial(_execute, FOLD_ALL), left)
                yield f"{'fold it again, for each row left':<34} {1e6 * (again.cpu or 0):8.1f} us of CPU; {left:,} rows"


def _execute(statement: str, sql: Cursor) -> None:
    sql.execute(statement)


def build(maintenance: URL, urls: Mapping[str, URL]) -> None:
    """Create databases without rows."""
    first, *others = urls.values()
    with cursor(maintenance) as sql:
        sql.execute(f"CREATE DATABASE {first.database}")
        upgrade(first)
        Database(first, Path()).query(NUMBERED_CALLS)
        for other in others:
            sql.execute(f"CREATE DATABASE {other.database} TEMPLATE {first.database}")


def has_pooler() -> bool:
    """Whether PgBouncer is on this machine, and the tests' module that starts it on the path."""
    with suppress(ImportError):
        from pooler import PROGRAM

        return PROGRAM is not None
    return False


def flush_time(folder: Path) -> float:
    """Milliseconds until a page is on the disk."""
    times = []
    with (folder / "flush").open("wb", buffering=0) as file:
        file.write(bytes(200 * 8192))  # as WAL, the file does not grow
        os.fsync(file.fileno())
        file.seek(0)
        for _ in range(200):
            file.write(bytes(8192))
            begun = time.perf_counter()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return 1e3 * statistics.median(times)


def main() -> None:
    """Run the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, help="counted runs of each")
    parser.add_argument("--calls", type=int, default=3200, help="calls that go on; a multiple of 64, from 1,600 on")
    parser.add_argument("--only", type=re.compile, default=re.compile(""), help="run the parts whose names it finds")
    parser.add_argument("--url", type=make_url, help="a throw-away server, instead of the embedded one")
    given = parser.parse_args()
    if given.calls % SESSIONS[-1] or given.calls < SESSIONS[-1] * (WARM + 5):
        parser.error("--calls must be a multiple of 64, from 1,600 on")

    with (
        run_on(given.url, CONNECTIONS) as (home, maintenance),
        names_free(maintenance, ["many", "one", "disk", "index"]) as urls,
    ):
        progress = Progress(2)
        print(f"A flush takes {flush_time(home):.2f} ms here; {os.cpu_count()} CPUs\n")
        build(maintenance, urls)
        benchmark = Benchmark(home, urls, given.rounds, given.calls, progress)
        # Each with its number of steps.
        parts: dict[str, tuple[Callable[[], Iterator[str]], int]] = {
            "Work": (benchmark.work, 5 * given.rounds),
            "Sessions": (benchmark.sessions, len(SESSIONS) * given.rounds),
            "Pooler": (benchmark.pooler, 3 * given.rounds),
            "Hot account": (benchmark.hot, 7 * given.rounds),
            "Old snapshot": (benchmark.snapshot, 2 + OLD),
            "WAL": (benchmark.wal, 3 * given.rounds),
            "wal_level": (benchmark.logical, 1 + 2 * given.rounds),
            "Disk": (benchmark.disk, 1),
            "Ledger's index": (benchmark.index, 3),
            "Retention": (benchmark.retention, 4),
        }
        if not has_pooler():
            del parts["Pooler"]
        if given.url:
            del parts["wal_level"]  # its other server is an embedded one
        parts = {name: part for name, part in parts.items() if given.only.search(name)}
        progress.of += sum(steps for _, steps in parts.values())
        results = {name: [*part()] for name, (part, _) in parts.items()}
        for name, result in results.items():
            print(name, *result, sep="\n", end="\n\n")
        # The last part deletes the calls of the first, and checks them before.
        for site in (benchmark.one,) if "Retention" in parts else (benchmark.one, benchmark.many):
            print(site.check())


if __name__ == "__main__":
    main()
