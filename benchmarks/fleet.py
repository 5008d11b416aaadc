"""A fleet's upgrade, with `alembic upgrade head` as a process for each site. A ratio below 1 is good.

    python benchmarks/fleet.py [--sites 32]

On the embedded PostgreSQL, one server for all sites:

- sites at the newest revision: CPU seconds of the clients for each site. The server's are not counted
- sites at revision 003, two at a time, with the same one after another: seconds by the clock. Half of it would be all
  that two processors can give
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from common import PROJECT, libpq, run_on
from sqlalchemy import NullPool, create_engine, text

import oblivion_schema

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sqlalchemy import URL

JOBS: Final = 2


class Fleet:
    """Sites on one server, and the file that names them."""

    def __init__(self, home: Path, server: URL, count: int) -> None:
        self.server = server
        self.urls = [server.set(database=f"site_{number}") for number in range(count)]
        self.file = home / "sites.toml"
        self.file.write_text("".join(f'[sites.{url.database}]\nurl = "{libpq(url)}"\n' for url in self.urls))
        self._do("CREATE DATABASE template_of_sites")
        oblivion_schema.upgrade(server.set(database="template_of_sites"), "003")

    def _do(self, *statements: str) -> None:
        engine = create_engine(self.server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for sql in statements:
                connection.execute(text(sql))

    def make(self) -> None:
        """Make all sites anew, at revision 003."""
        for url in self.urls:
            self._do(
                f"DROP DATABASE IF EXISTS {url.database} WITH (FORCE)",
                f"CREATE DATABASE {url.database} TEMPLATE template_of_sites STRATEGY FILE_COPY",
            )

    def together(self) -> tuple[float, float]:
        """Upgrade all of them by one command."""
        program = [sys.executable, "-m", "oblivion_schema", "fleet", str(self.file), "upgrade", "--jobs", str(JOBS)]
        return spent([program])

    def one_by_one(self, count: int) -> tuple[float, float]:
        """Upgrade some of them by a process each."""
        urls = [libpq(url) for url in self.urls[:count]]
        return spent([[sys.executable, "-m", "alembic", "-x", f"url={url}", "upgrade", "head"] for url in urls])


def spent(commands: Sequence[Sequence[str]]) -> tuple[float, float]:
    """Seconds by the clock, and CPU seconds of the commands and of what they started."""
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, cwd=PROJECT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - began, cpu


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=32)
    count = parser.parse_args().sites
    with run_on(settings="fsync = off\nmax_connections = 60\n") as (home, server):
        fleet = Fleet(home, server, count)
        fleet.make()
        fleet.one_by_one(1)  # compiles the checkout
        fleet.make()
        ours, _ = fleet.together()
        few = min(count, 8)
        _, at_head = fleet.together()
        _, alone = fleet.one_by_one(few)
        fleet.make()
        base, _ = fleet.one_by_one(count)
    print(f"{f'{count} sites':<40} {'ours':>10} {'base':>10} {'ratio':>9}")
    show("at head, CPU of each site", at_head / count, alone / few, 0.1)
    show(f"from 003, {JOBS} at a time, by the clock", ours, base, 0.6)


def show(name: str, ours: float, base: float, bound: float) -> None:
    """Print a line."""
    print(f"{name:<40} {ours:8.3f} s {base:8.3f} s {ours / base:7.3f} x   at most {bound} x")


if __name__ == "__main__":
    main()
