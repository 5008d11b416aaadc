"""The time to upgrade a fresh database in each way, for whole processes. A smaller ratio is better.

    PYTHONPATH=tests python benchmarks/delivery.py [--runs 15]

Two comparisons on the embedded PostgreSQL; each alternates (A B A B ...), so that a machine that slows down slows both:

- `supabase db push` of the exported files, with `alembic upgrade head`
- `psql -f` of the same files, one process for each file, with `alembic upgrade head`

The Supabase CLI is the one that the tests install with npm; it connects to the server as in the tests.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pushing import Project, SupabaseCLI, by_tcp
from sqlalchemy import NullPool, create_engine, text
from startup import PROJECT, compare, seconds

from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from sqlalchemy import URL


def main() -> None:
    """Run both comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="counted pairs of each comparison")
    runs = parser.parse_args().runs

    home = Path(tempfile.mkdtemp(prefix="oblivion-schema-benchmark-"))
    home.chmod(0o755)
    files = sorted((PROJECT / "supabase" / "migrations").glob("*.sql"))
    project = Project(SupabaseCLI.at_home_in(home), home / "project")
    project.hold(files)
    server = embedded.start(home / "server", at_exit="delete")
    admin = create_engine(embedded.url(server), poolclass=NullPool, isolation_level="AUTOCOMMIT")
    program = str(embedded.binary("psql"))

    def empty_database() -> URL:
        with admin.connect() as connection:
            connection.execute(text("DROP DATABASE IF EXISTS benchmark WITH (FORCE)"))
            connection.execute(text("CREATE DATABASE benchmark"))
        return embedded.url(server, "benchmark").set(drivername="postgresql")

    def alembic() -> float:
        url = empty_database().render_as_string(hide_password=False)
        return seconds([sys.executable, "-m", "alembic", "-x", f"url={url}", "upgrade", "head"])

    def psql() -> float:
        url = empty_database().render_as_string(hide_password=False)
        return seconds(*([program, "-Xq", "-v", "ON_ERROR_STOP=1", "-f", str(path), url] for path in files))

    def push() -> float:
        with by_tcp(empty_database()) as url:
            start = time.perf_counter()
            ended = project.push(url)
            taken = time.perf_counter() - start
        if ended.status:
            raise SystemExit(ended.err)
        return taken

    print(f"{'':<42} {'ours':>8} {'base':>8} {'median ratio':>13}")
    compare("supabase db push / alembic upgrade head", 2, push, alembic, runs)
    compare("psql -f, each file / alembic upgrade head", 0.5, psql, alembic, runs)
    admin.dispose()
    server.cleanup()
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
