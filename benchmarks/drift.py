"""How many changes of a schema each tool gets right, on the same mutations; and what a check and a revision cost.

    PYTHONPATH=tests python benchmarks/drift.py [--only TEXT] [--every 1] [--runs 5] [--verbose]

The mutations are those of tests/mutations.sql that a metadata can undergo. For each of them every tool gets a database
of its own as it was before, and the wanted state. Its migration is right if pg_dump prints the migrated database as the
wanted one (without the order of columns, which no migration can change), and then, after the way back, as it was.

The tools are installed by npm and pip into a temporary folder, in the versions that stand here. What is meant for
Alembic is told the wanted state as it reads it by itself (`drift_peers/alembic_peer.py`). @supabase/pg-delta compares
two databases; its way back is a second plan in the other direction. `--every 6` took nine minutes on two busy cores.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import venv
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import pytest
from check import plain_environment
from common import PROJECT, Progress, cursor, libpq, run_on
from revisions_cache import build_once
from sqlalchemy import URL, NullPool, create_engine
from startup import compare, seconds
from support import SERVER_VARIABLE, declared, program
from test_drift import OF_THE_METADATA, Mutation, drift, run_rendered
from test_random_schemas import comparable

from oblivion_schema import upgrade

if TYPE_CHECKING:
    from collections.abc import Sequence

PG_DELTA: Final = "@supabase/pg-delta@1.0.0-alpha.34"
PYTHON_PEERS: Final = (
    "alembic==1.20.1",
    "alembic-utils==0.8.8",
    "sqlalchemy==2.1.9",
    "sqlalchemy-declarative-extensions[parse]==0.17.0",
    "psycopg2-binary==2.9.13",
)
NOT_COMPARED: Final = "pgschema is not compared: it is a Go program that neither npm nor PyPI has."
SETTINGS: Final = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\nautovacuum = off\n"


class ToolError(Exception):
    """The tool refused, or failed."""


class Tool(Protocol):
    """What writes migrations, and runs them."""

    name: str

    def there(self, live: URL, want: URL, mutation: Mutation) -> bool:
        """Migrate `live`; False if the tool saw nothing to do. Raises ToolError."""

    def back(self, live: URL, before: URL) -> None:
        """Migrate it back. Raises ToolError."""


class Ours:
    """`alembic revision --autogenerate` of this project."""

    name = "oblivion-schema"

    def there(self, live: URL, _: URL, mutation: Mutation) -> bool:
        """Write the revision as the command does, without its file, and run it."""
        with declared(mutation.setup, mutation.sql), create_engine(live, poolclass=NullPool).connect() as connection:
            try:
                connection.exec_driver_sql("SET LOCAL search_path = public; SET LOCAL oblivion.drop_data = yes")
                found = drift(connection, drop_unknown=True)
                self.downgrade = found.downgrade()
                run_rendered(connection, found.upgrade())
                connection.commit()
            except Exception as error:
                raise ToolError(str(error)) from error
        return bool(found.differences)

    def back(self, live: URL, _: URL) -> None:
        """Run the downgrade."""
        with create_engine(live, poolclass=NullPool).connect() as connection:
            try:
                connection.exec_driver_sql("SET LOCAL search_path = public; SET LOCAL oblivion.drop_data = yes")
                run_rendered(connection, self.downgrade)
                connection.commit()
            except Exception as error:
                raise ToolError(str(error)) from error


class PgDelta:
    """Supabase's pg-delta, which compares two databases."""

    name = "pg-delta"

    def __init__(self, npm: str, home: Path) -> None:
        if not (home / "node_modules").is_dir():
            subprocess.run(
                [npm, "install", "--silent", "--no-audit", "--no-fund", "--prefix", home, PG_DELTA],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        self.program, self.plan = home / "node_modules" / ".bin" / "pgdelta", home / "plan.json"

    def run(self, *arguments: str | Path) -> None:
        """Run a command."""
        done = subprocess.run([self.program, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolError((done.stderr or done.stdout).strip())

    def migrate(self, source: URL, desired: URL) -> bool:
        """Plan and apply; False if the plan has no actions."""
        ends = ["--source", of_node(source), "--desired", of_node(desired)]
        self.run("plan", *ends, "--out", self.plan)
        if not json.loads(self.plan.read_text(encoding="utf-8"))["actions"]:
            return False
        self.run("apply", "--plan", self.plan, "--target", of_node(source), "--allow-data-loss")
        return True

    def there(self, live: URL, want: URL, _: Mutation) -> bool:
        """Plan and apply."""
        return self.migrate(live, want)

    def back(self, live: URL, before: URL) -> None:
        """Plan and apply in the other direction."""
        self.migrate(live, before)


def of_node(url: URL) -> str:
    """`url` as node's clients take it: a socket's folder stands beside a host."""
    return libpq(url.set(host=url.host or "localhost"))


class AlembicPeer:
    """A tool on Alembic's autogenerate, in a process of its own."""

    def __init__(self, name: str, python: Path, home: Path) -> None:
        self.name, self.home, self.number = name, home, 0
        script = Path(__file__).parent / "drift_peers" / "alembic_peer.py"
        self.process = subprocess.Popen(
            [python, script, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(python.parent / f"{name}.log").open("w"),
            text=True,
            env={"PATH": "/usr/bin:/bin"},
        )

    def ask(self, do: str, live: URL, want: URL) -> bool:
        """Send a request, and read its answer."""
        self.number += do == "there"
        request = {
            "do": do,
            "live": live.render_as_string(hide_password=False),
            "want": want.render_as_string(hide_password=False),
            "folder": str(self.home / self.name / str(self.number)),
        }
        questions, answers = self.process.stdin, self.process.stdout
        if not (questions and answers):
            raise ToolError("it has no pipes")
        print(json.dumps(request), file=questions, flush=True)
        said = json.loads(answers.readline() or '{"error": "it ended"}')
        if "error" in said:
            raise ToolError(said["error"])
        return bool(said["seen"])

    def there(self, live: URL, want: URL, _: Mutation) -> bool:
        """Write the revision, and upgrade."""
        return self.ask("there", live, want)

    def back(self, live: URL, before: URL) -> None:
        """Downgrade."""
        self.ask("back", live, before)


def install(tools_home: Path, home: Path) -> list[Tool]:
    """All tools; says which cannot be had here."""
    tools: list[Tool] = [Ours()]
    print(NOT_COMPARED)
    if npm := shutil.which("npm"):
        tools.append(PgDelta(npm, tools_home))
    else:
        print("pg-delta is not compared: it needs node and npm.")
    python = tools_home / "python" / "bin" / "python"
    if not python.exists():
        venv.create(tools_home / "python", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PYTHON_PEERS], check=True)
    return [
        *tools,
        *(AlembicPeer(name, python, home) for name in ("alembic_utils", "declarative_extensions", "alembic")),
    ]


class Databases:
    """Databases of one server, each a copy of another."""

    def __init__(self, maintenance: URL) -> None:
        self.maintenance = maintenance

    def new(self, name: str, copy_of: URL | None = None) -> URL:
        """A new database in place of one of that name."""
        with cursor(self.maintenance) as sql:
            sql.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            template = f" TEMPLATE {copy_of.database} STRATEGY FILE_COPY" if copy_of is not None else ""
            sql.execute(f"CREATE DATABASE {name}{template}")
        return self.maintenance.set(database=name)

    def restored(self, script: str) -> URL:
        """A database that a dump restores."""
        url = self.new("restored")
        psql = [str(program("psql")), "-Xq", "-v", "ON_ERROR_STOP=1", libpq(url)]
        subprocess.run(psql, input=script, text=True, check=True, capture_output=True)
        return url


def dumped(url: URL, *options: str) -> str:
    """What pg_dump prints."""
    command = [str(program("pg_dump")), "--no-sync", "--exclude-schema=peer", *options, libpq(url)]
    printed: str = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return printed


@dataclass
class State:
    """What counts of a database: its schema, as it is and as it is once restored, and the reference rows."""

    databases: Databases
    url: URL

    @cached_property
    def rates(self) -> list[str]:
        """The reference rows."""
        printed = dumped(self.url, "--data-only", "--inserts", "--table=public.token_rates")
        return sorted(line for line in printed.splitlines() if line.startswith("INSERT"))

    @cached_property
    def schema(self) -> str:
        """The schema."""
        return dumped(self.url, "--schema-only")

    @cached_property
    def restored(self) -> str:
        """The schema that it restores: PostgreSQL prints some expressions in other words then."""
        return dumped(self.databases.restored(self.schema), "--schema-only")

    def difference(self, other: State) -> str:
        """The first statement that differs; empty if both are equal, or what they restore is."""
        if self.rates != other.rates:
            return "rows of token_rates"
        for its in ("schema", "restored"):
            left, right = comparable(getattr(self, its)), comparable(getattr(other, its))
            differs = [sql for sql in [*left, *right] if (sql in left) != (sql in right)]
            if not differs:
                return ""
        return differs[0]


RIGHT: Final = "right both ways"
VERDICTS: Final = (RIGHT, "right, not back", "wrong", "fails", "sees nothing")


def verdict(tool: Tool, databases: Databases, before: State, want: State, mutation: Mutation) -> tuple[str, str]:
    """How a tool deals with a mutation, and what it said if it failed, or the first difference that it left."""
    live = databases.new("live", before.url)
    try:
        if not tool.there(live, want.url, mutation):
            return "sees nothing", ""
    except ToolError as error:
        return "fails", str(error)
    if wrong := State(databases, live).difference(want):
        return "wrong", wrong
    try:
        tool.back(live, before.url)
    except ToolError as error:
        return "right, not back", str(error)
    wrong = State(databases, live).difference(before)
    return ("right, not back" if wrong else RIGHT), wrong


def execute(url: URL, sql: str) -> None:
    """Run a script."""
    with cursor(url) as connection:
        connection.execute("SET search_path = public")
        if sql.strip():
            connection.execute(sql)


def compare_tools(
    home: Path, tools_home: Path | None, maintenance: URL, mutations: Sequence[Mutation], *, verbose: bool
) -> None:
    """Print a table of verdicts."""
    tools = install(tools_home or home, home)
    databases = Databases(maintenance)
    template = databases.new("upgraded")
    upgrade(template)
    found: dict[str, Counter[str]] = {tool.name: Counter() for tool in tools}
    progress = Progress(len(mutations))
    # Ctrl-C ends it early, with what was measured.
    with suppress(KeyboardInterrupt), pytest.MonkeyPatch.context() as monkeypatch:
        build_once(monkeypatch)
        for mutation in mutations:
            before = databases.new("before", template)
            execute(before, mutation.once)
            execute(before, mutation.setup)
            want = databases.new("want", before)
            execute(want, mutation.sql)
            states = State(databases, before), State(databases, want)
            said = {tool.name: verdict(tool, databases, *states, mutation) for tool in tools}
            for name, (its, why) in said.items():
                found[name][its] += 1
                if verbose and its != RIGHT:
                    print(f"{mutation.change} {mutation.kind} {mutation.name}: {name}: {its} {why[:900]}")
            progress(f"{mutation.change} {mutation.kind}")
    for tool in tools:
        if isinstance(tool, AlembicPeer):
            tool.process.kill()
    print(f"\n{progress.done} of {len(mutations)} mutations\n")
    print(f"| tool | {' | '.join(VERDICTS)} |\n|---|{'---|' * len(VERDICTS)}")
    for name, counts in found.items():
        print(f"| {name} | {' | '.join(str(counts[its]) for its in VERDICTS)} |")


def compare_times(home: Path, maintenance: URL, runs: int) -> None:
    """Print the cost of a check and of a revision."""
    url = Databases(maintenance).new("timed").render_as_string(hide_password=False)
    upgrade(url)
    plain = str(plain_environment(home, url))
    copy = home / "checkout"
    shutil.copytree(PROJECT / "alembic", copy / "alembic")
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(PROJECT / name, copy)
    alembic = [sys.executable, "-m", "alembic"]
    ours = [*alembic, "-c", str(copy / "alembic.ini"), "-x", f"url={url}"]

    def revision() -> float:
        took = seconds([*ours, "revision", "--autogenerate", "-m", "nothing"])
        for path in (copy / "alembic" / "versions").glob("*_nothing.py"):
            path.unlink()
        return took

    def check() -> float:
        return seconds([*ours, "check"])

    print(f"\n{'':<42} {'ours':>8} {'base':>8} {'median ratio':>13}")
    compare(
        "alembic check / Alembic's own, tables alone",
        1.5,
        check,
        lambda: seconds([*alembic, "-c", plain, "check"]),
        runs,
    )
    compare("revision --autogenerate / alembic check", 2, revision, check, runs)


def main() -> None:
    """Run the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="mutations whose kind or name has this text")
    parser.add_argument("--every", type=int, default=1, help="of the mutations, take each N-th")
    parser.add_argument("--runs", type=int, default=5, help="counted pairs of each comparison of times; 0 for none")
    parser.add_argument("--verbose", action="store_true", help="say what each tool gets wrong, and what it says")
    parser.add_argument("--tools", type=Path, help="install the tools there, and use those that are there")
    options = parser.parse_args()
    mutations = [one for one in OF_THE_METADATA if options.only in f"{one.change} {one.kind}: {one.name}"]
    mutations = mutations[:: options.every]
    with run_on(settings=SETTINGS) as (home, server), pytest.MonkeyPatch.context() as monkeypatch:
        maintenance = server.set(drivername="postgresql+psycopg2")
        monkeypatch.setenv(SERVER_VARIABLE, maintenance.render_as_string(hide_password=False))
        for role in ("anon", "authenticated", "service_role"):
            with cursor(maintenance) as sql:
                sql.execute(f"CREATE ROLE {role} NOLOGIN")
        compare_tools(home, options.tools, maintenance, mutations, verbose=options.verbose)
        if options.runs:
            compare_times(home, maintenance, options.runs)


if __name__ == "__main__":
    main()
