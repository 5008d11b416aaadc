"""The cost of comparing every kind of object, for whole processes. A smaller ratio is better.

    python benchmarks/check.py [--runs 15]

It compares this project's `alembic check` with Alembic's own check of the same tables: an env.py as in Alembic's
template, and a metadata of the tables with columns, constraints and indexes only; and `oblivion-schema verify` with
`alembic check`. All run on one upgraded database of the embedded PostgreSQL. They alternate (A B A B ...), so that a
machine that slows down slows both.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

from startup import compare, seconds

from oblivion_schema import upgrade
from oblivion_schema.server import embedded

ENV = """
from alembic import context
from sqlalchemy import MetaData, create_engine, pool

from oblivion_schema import metadata

tables = MetaData()
for table in metadata.tables.values():
    if not table.is_view:
        table.to_metadata(tables)
indexes = {index.name for table in tables.tables.values() for index in table.indexes}

with create_engine(context.config.get_main_option("sqlalchemy.url"), poolclass=pool.NullPool).connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=tables,
        version_table_schema="oblivion",
        include_schemas=True,
        # The metadata of this comparison lacks the indexes that the package declares as SQL.
        include_name=lambda name, kind, parents: kind != "index" or name in indexes,
    )
    with context.begin_transaction():
        context.run_migrations()
"""


def plain_environment(home: Path, url: str) -> Path:
    """Write the environment of Alembic's own check, with the same revisions; returns its alembic.ini."""
    project = Path(__file__).parent.parent
    scripts = home / "plain"
    shutil.copytree(project / "alembic", scripts / "alembic")
    (scripts / "alembic" / "env.py").write_text(dedent(ENV), encoding="utf-8")
    ini = scripts / "alembic.ini"
    settings = ["[alembic]", "script_location = %(here)s/alembic", "path_separator = os"]
    settings.append(f"sqlalchemy.url = {url.replace('%', '%%')}")
    ini.write_text("\n".join(settings), encoding="utf-8")
    return ini


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15, help="counted pairs")
    runs = parser.parse_args().runs

    home = Path(tempfile.mkdtemp(prefix="oblivion-schema-benchmark-"))
    home.chmod(0o755)
    server = embedded.start(home / "server", at_exit="delete")
    url = embedded.url(server).render_as_string(hide_password=False)
    upgrade(url)
    alembic = [sys.executable, "-m", "alembic"]
    ini = str(plain_environment(home, url))

    print(f"{'':<42} {'ours':>8} {'base':>8} {'median ratio':>13}")
    compare(
        "alembic check / Alembic's own, tables alone",
        1.5,
        lambda: seconds([*alembic, "-x", f"url={url}", "check"]),
        lambda: seconds([*alembic, "-c", ini, "check"]),
        runs,
    )
    compare(
        "verify / alembic check",
        3,
        lambda: seconds([sys.executable, "-m", "oblivion_schema", "-x", f"url={url}", "verify"]),
        lambda: seconds([*alembic, "-x", f"url={url}", "check"]),
        runs,
    )
    server.cleanup()
    shutil.rmtree(home)


if __name__ == "__main__":
    main()
