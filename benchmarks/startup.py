"""The time that the package adds to its dependencies, for whole processes. A ratio near 1 is good.

    python benchmarks/startup.py [--runs 15]

Two comparisons on the embedded PostgreSQL; each alternates (A B A B ...), so that a machine that slows down slows both:

- `alembic upgrade head` on an empty database, with importing alembic, sqlalchemy and psycopg2 plus psql applying the
  script that `--sql` prints
- `import oblivion_schema`, with `import sqlalchemy`
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import NullPool, create_engine, text

from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROJECT = Path(__file__).parent.parent
# An installed package is compiled already. The warm-up compiles a checkout, unless this variable forbids to store that.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def seconds(*commands: Sequence[str]) -> float:
    """Wall-clock seconds of the commands, run one after the other."""
    start = time.perf_counter()
    for command in commands:
        subprocess.run(command, check=True, capture_output=True, cwd=PROJECT, env=ENVIRONMENT)
    return time.perf_counter() - start


def compare(name: str, bound: float, ours: Callable[[], float], base: Callable[[], float], runs: int) -> None:
    """Measure `runs` pairs after a warm-up; print the medians in seconds and the median ratio of the pairs."""
    pairs = [(ours(), base()) for _ in range(runs + 1)][1:]
    ratios = [our / their for our, their in pairs]
    low, median, high = min(ratios), statistics.median(ratios), max(ratios)
    our, their = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"{name:<42} {our:7.4f} s {their:7.4f} s {median:7.2f} x  ({low:.2f}-{high:.2f})   at most {bound} x")


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="counted pairs of each comparison")
    runs = parser.parse_args().runs

    home = Path(tempfile.mkdtemp(prefix="oblivion-schema-benchmark-"))
    home.chmod(0o755)
    server = embedded.start(home / "server", at_exit="delete")
    admin = create_engine(embedded.url(server), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    psql = str(embedded.binary("psql"))
    script = home / "upgrade.sql"
    alembic = [sys.executable, "-m", "alembic"]
    script.write_bytes(
        subprocess.run([*alembic, "upgrade", "head", "--sql"], check=True, capture_output=True, cwd=PROJECT).stdout
    )

    def empty_database() -> str:
        with admin.connect() as connection:
            connection.execute(text("DROP DATABASE IF EXISTS benchmark WITH (FORCE)"))
            connection.execute(text("CREATE DATABASE benchmark"))
        return embedded.url(server, "benchmark").set(drivername="postgresql").render_as_string(hide_password=False)

    def upgrade() -> float:
        return seconds([*alembic, "-x", f"url={empty_database()}", "upgrade", "head"])

    def imports_and_psql() -> float:
        url = empty_database()
        return seconds(
            [sys.executable, "-c", "import alembic, sqlalchemy, psycopg2"],
            [psql, "-Xq", "-v", "ON_ERROR_STOP=1", "-f", str(script), url],
        )

    def importing(module: str) -> Callable[[], float]:
        return lambda: seconds([sys.executable, "-c", f"import {module}"])

    print(f"{'':<42} {'ours':>8} {'base':>8} {'median ratio':>13}")
    compare("alembic upgrade head / imports + psql", 1.25, upgrade, imports_and_psql, runs)
    compare(
        "import oblivion_schema / import sqlalchemy", 1.15, importing("oblivion_schema"), importing("sqlalchemy"), runs
    )
    server.cleanup()
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
