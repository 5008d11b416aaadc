"""Concurrent clients use the token engine for some minutes, while sessions and servers are killed; a copy takes over.

    PYTHONPATH=tests python benchmarks/soak.py [--minutes 10] [--operations N] [--clients 8] [--seed N]

It runs the load of tests/test_billing_load.py on an embedded PostgreSQL of its own, whose tables are all published; a
second one subscribes. Random sessions are terminated all the time; twice a minute a server is killed (SIGKILL) and
restarted, the publisher or the subscriber, and the load goes on. After each round it ends and settles all calls, and
checks every acknowledged operation, every invariant of tests/books.py, every sum of the roll-ups and each identity; the
subscriber has to hold the same rows then, table by table. The next round begins with new accounts and calls. At the end
the subscriber is promoted as documented, and the last round is its own.

The last line has the number of operations and failures, and "all invariants hold"; otherwise it has the violations, and
the exit status is 1. The same seed makes the same choices, but the clients' race changes their order.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from billing_load import Load, restarted_after_a_kill
from replication import BEHIND, RESTART, SETTINGS, caught_up, contents, do, subscribed
from support import execute, query, run, temporary_home

import oblivion_schema
from oblivion_schema.server import embedded
from oblivion_schema.tables.rollups import DRIFTS

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL

ROUND = 30  # seconds
BAR = 30  # characters
SAFE = SETTINGS.replace("fsync = off", "fsync = on\nsynchronous_commit = on")
# What the calls of a round leave: the next one would have to check it again.
FORGET = """
DROP SCHEMA load CASCADE;
DELETE FROM call_sessions;
DELETE FROM token_usage;
DELETE FROM oblivion.billing_incidents;
"""


@dataclass
class Soak:
    """The servers' folders, and what was done so far."""

    home: Path
    seed: int
    clients: int
    rounds: int = 0
    loads: list[Load] = field(default_factory=list)

    def url(self, name: str) -> URL:
        """The server of that name, started if it is not running."""
        return embedded.url(embedded.start(self.home / name, settings=SAFE))

    def round(self, name: str, killed: tuple[str, ...], seconds: float) -> list[str]:
        """Let clients work on a server, of which one is killed meanwhile: what is wrong then."""
        url = self.url(name)
        if self.rounds:
            execute(url, FORGET)
        load = Load(url, self.seed, rounds=self.rounds, between_kills=1)
        self.loads.append(load)
        self.rounds += 1
        load.prepare()
        victim = killed[self.rounds % len(killed)]

        def crash() -> None:
            restarted_after_a_kill(self.home / victim)
            load.suffered[f"{victim} killed"] += 1

        load.run(self.clients, lambda: time.sleep(seconds / 2), crash, lambda: time.sleep(seconds / 2))
        off = [*load.finish(), *self.drifts(url)]
        return [f"{name}: {wrong}" for wrong in off]

    def drifts(self, url: URL) -> list[str]:
        """What the audits of a database name."""
        audits = [f"TABLE {drift.fullname}" for drift in DRIFTS]
        audits += ["SELECT * FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0", BEHIND]
        return [f"{sql}: {row}" for sql in audits for row in query(url, sql)]

    def copied(self) -> list[str]:
        """How the subscriber differs from the publisher."""
        publisher, subscriber = self.url("publisher"), self.url("subscriber")
        caught_up(publisher, seconds=600)
        there, copied = contents(publisher), contents(subscriber)
        off = [f"{table} differs" for table, rows in there.items() if copied[table] != rows]
        return off + [f"subscriber: {wrong}" for wrong in self.drifts(subscriber) if BEHIND not in wrong]

    def promoted(self, seconds: float) -> list[str]:
        """Let the subscriber take over."""
        subscriber = self.url("subscriber")
        do(subscriber, "DROP SUBSCRIPTION moving")
        embedded.stop(self.home / "publisher")
        query(subscriber, RESTART)
        execute(subscriber, "CREATE SCHEMA IF NOT EXISTS load")
        off = self.round("subscriber", ("subscriber",), seconds)
        verified = run("verify", url=subscriber)
        return off if verified.status == 0 else [*off, verified.out]

    def __call__(self, end: float, operations: float) -> list[str]:
        """Run rounds until the time is over, or so much is done, or something is wrong; returns what is wrong."""
        publisher = self.url("publisher")
        oblivion_schema.upgrade(publisher, demo=False)
        execute(publisher, "CREATE PUBLICATION moving FOR ALL TABLES")
        subscribed(self.url("subscriber"), publisher)
        off: list[str] = []
        while not off and (left := end - time.monotonic()) > 0 and self.operations() < operations:
            off = self.round("publisher", ("publisher", "subscriber"), min(ROUND, left)) or self.copied()
        return off or self.promoted(ROUND)

    def operations(self) -> int:
        """How many were done."""
        return sum(load.did.total() for load in self.loads)

    def suffered(self) -> dict[str, int]:
        """What was killed and lost, and how often."""
        events = {event for load in self.loads for event in load.suffered}
        return {event: sum(load.suffered[event] for load in self.loads) for event in sorted(events)}


def main() -> int:
    """Run the clients, and show their progress."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="at most so long (default: 10)")
    parser.add_argument("--operations", type=float, default=float("inf"), help="end once so many are done")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="default: a random one")
    options = parser.parse_args()

    home = temporary_home()
    soak = Soak(home, options.seed, options.clients)
    try:
        seconds = options.minutes * 60
        start = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(soak, start + seconds, options.operations)
            while not work.done():
                done = soak.operations()
                passed = min(1, max((time.monotonic() - start) / seconds, done / options.operations))
                bar = f"[{'#' * round(BAR * passed):<{BAR}}] {passed:4.0%}"
                print(f"\r{bar} {done} operations in {soak.rounds} rounds", end="", file=sys.stderr, flush=True)
                time.sleep(0.5)
            print(file=sys.stderr)
            off = work.result()
    finally:
        for name in ("publisher", "subscriber"):
            embedded.stop(home / name)
        shutil.rmtree(home, ignore_errors=True)

    suffered = ", ".join(f"{event} {count}" for event, count in soak.suffered().items())
    verdict = f"{len(off)} violations: {'; '.join(off[:20])}" if off else "all invariants hold"
    print(f"seed {options.seed}: {soak.operations()} operations in {soak.rounds} rounds ({suffered}): {verdict}")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
