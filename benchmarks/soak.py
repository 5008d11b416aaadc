"""Concurrent clients use the token engine for some minutes, while sessions and the server are killed.

    PYTHONPATH=tests python benchmarks/soak.py [--minutes 10] [--clients 8] [--seed N]

It runs the load of tests/test_billing_load.py on an embedded PostgreSQL of its own. Random sessions are terminated all
the time; twice a minute the whole server is killed (SIGKILL) and restarted, and the load goes on. After each round it
ends and settles all calls, and checks every acknowledged operation and every invariant of tests/books.py.

The last line has the number of operations and failures, and "all invariants hold"; otherwise it has the violations, and
the exit status is 1. The same seed makes the same choices, but the clients' race changes their order.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from billing_load import Load, restarted_after_a_kill
from support import temporary_home

import oblivion_schema
from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from pathlib import Path

ROUND = 30  # seconds
BAR = 30  # characters


def crash(load: Load, directory: Path) -> None:
    """Kill the server with SIGKILL, and restart it."""
    restarted_after_a_kill(directory)
    load.suffered["server killed"] += 1


def soak(load: Load, directory: Path, clients: int, end: float) -> list[str]:
    """Run rounds until the time is over or an invariant is violated; returns the violations."""
    off: list[str] = []
    while not off and (left := end - time.monotonic()) > 0:
        half = min(ROUND, left) / 2

        load.run(clients, lambda: time.sleep(half), lambda: crash(load, directory), lambda: time.sleep(half))  # noqa: B023
        off = load.finish()
    return off


def main() -> int:
    """Run the clients, and show their progress."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000, help="default: a random one")
    options = parser.parse_args()

    home = temporary_home()
    directory = home / "server"
    try:
        url = embedded.url(embedded.start(directory, settings="fsync = on\nsynchronous_commit = on\n"))
        oblivion_schema.upgrade(url)
        load = Load(url, options.seed)
        load.prepare()
        seconds = options.minutes * 60
        start = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            work = pool.submit(soak, load, directory, options.clients, start + seconds)
            while not work.done():
                passed = min(1, (time.monotonic() - start) / seconds)
                bar = f"[{'#' * round(BAR * passed):<{BAR}}] {passed:4.0%}"
                kills = load.suffered["server killed"]
                print(
                    f"\r{bar} {load.did.total()} operations, {kills} server kills", end="", file=sys.stderr, flush=True
                )
                time.sleep(0.5)
            print(file=sys.stderr)
            off = work.result()
    finally:
        embedded.stop(directory)
        shutil.rmtree(home, ignore_errors=True)

    suffered = ", ".join(f"{event} {count}" for event, count in sorted(load.suffered.items()))
    verdict = f"{len(off)} violations: {'; '.join(off[:20])}" if off else "all invariants hold"
    print(f"seed {options.seed}: {load.did.total()} operations ({suffered}): {verdict}")
    return 1 if off else 0


if __name__ == "__main__":
    sys.exit(main())
