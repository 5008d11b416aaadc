"""What a test of a service pays for a database of its own, by the fixtures of the pytest plugin. Takes a minute.

    python benchmarks/testing.py [--rounds 31]

In turn (A B A B ...) on the embedded server that the plugin starts:

- a copy of the template, an engine on it, one statement, and the drop: what each test after the first waits for
- the same with a new database that is upgraded for the test

The last line is the wait of the first test: the server and the template.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from functools import partial
from typing import TYPE_CHECKING

from common import Progress, in_turn
from sqlalchemy import create_engine, text

from oblivion_schema import upgrade
from oblivion_schema.testing import SERVER_VARIABLE, copy, janitor, running_server, template, url_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

    from oblivion_schema.testing import Server


def use(url: URL) -> None:
    """What the shortest test does."""
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM user_accounts"))
    engine.dispose()


def by_a_copy(server: Server, of: str) -> None:
    """Use a copy of the template."""
    with copy(server, of) as url:
        use(url)


def by_an_upgrade(server: Server, build: Callable[[URL], object]) -> None:
    """Use a database that is built for this."""
    with janitor(server) as made:
        build(url_of(server, made.dbname))
        use(url_of(server, made.dbname))


def seconds(do: Callable[[], None]) -> float:
    """Wall-clock seconds."""
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31, help="counted pairs")
    rounds = parser.parse_args().rounds
    os.environ.pop(SERVER_VARIABLE, None)
    build = partial(upgrade, demo=False)
    start = time.perf_counter()
    with running_server() as server, template(server, build) as name:
        first = time.perf_counter() - start
        step = Progress(rounds + 1)
        pairs = in_turn(
            lambda: seconds(lambda: by_a_copy(server, name)),
            lambda: seconds(lambda: by_an_upgrade(server, build)),
            rounds,
            lambda: step("a copy, and an upgrade"),
        )
    ours, base = ([1000 * each for each in times] for times in zip(*pairs, strict=True))
    ratio = statistics.median(our / its for our, its in pairs)
    print(f"a test's database: {statistics.median(ours):.0f} ms ({min(ours):.0f}-{max(ours):.0f}), at most 150 ms")
    print(f"a copy / an upgrade of {statistics.median(base):.0f} ms: {ratio:.2f} x")
    print(f"before the first test: {first:.1f} s")


if __name__ == "__main__":
    main()
