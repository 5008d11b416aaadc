"""docs/operations.md tells the truth: each of its commands is run here as it is written, and ends as it says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
from sqlalchemy import NullPool, create_engine, make_url, text
from support import API_ROLES, PROJECT, execute, libpq, query, run, temporary_home

import oblivion_schema
from oblivion_schema import metadata
from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

    Shell = Callable[..., subprocess.CompletedProcess[str]]

PAGE: Final = (PROJECT / "docs" / "operations.md").read_text(encoding="utf-8")
# Which test runs the commands below a heading.
RUN_BY: Final = {
    "What to watch": "test_queries_to_watch_find_what_is_wrong_and_nothing_else",
    "The scheduler": "test_schedulers_lines_run_as_written",
    "Backup and restore": "test_whole_dump_needs_nothing_else",
    "The whole": "test_whole_dump_needs_nothing_else",
    "Without privileges": "test_restore_without_privileges_is_healed_by_the_switch",
    "Rows alone": "test_rows_alone_come_back_exactly",
    "One table": "test_rows_of_one_table_come_back",
    "Parts that are not enough": "test_rows_of_schema_public_alone_come_back",
    "A new major version": "test_pg_upgrade_keeps_everything",
}
ELSEWHERE: Final = {"Replication"}
"""Run by tests/test_replication.py."""

# Accounts with credits, calls of every kind that go on or are over, usage, a rate to come, and an account that is gone.
ROWS: Final = """
INSERT INTO user_accounts (user_id, tokens_remaining) SELECT 'user ' || n, 100 * n FROM generate_series(1, 9) AS n;
INSERT INTO token_rates (mode, used_turn, effective_from, tokens_per_minute)
VALUES ('video', false, now() + interval '10 years', 3);
SELECT top_up('user 1', 50, 'free');
SELECT start_call('user ' || n, 'lobby', 'video', n % 2 = 0) FROM generate_series(1, 6) AS n;
UPDATE call_sessions SET start_time = start_time - interval '5 minutes';
SELECT tick_call(id) FROM call_sessions;
SELECT set_call_turn(id, true) FROM call_sessions WHERE user_id = 'user 3';
SELECT end_call(id) FROM call_sessions WHERE user_id IN ('user 1', 'user 3', 'user 4');
INSERT INTO call_sessions (room_id, user_id, mode, end_time, credit_cost)
VALUES ('r', 'user 7', 'voice-only', now() + interval '61 seconds', 0.4);
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)
VALUES ('user 7', 'call', 2, 'video', false), ('user 8', 'call', 4, 'video', true);
INSERT INTO user_presence (host_id, room_id) VALUES ('user 1', 'lobby');
UPDATE user_accounts SET tokens_remaining = 7 WHERE user_id = 'user 9';
DELETE FROM user_accounts WHERE user_id = 'user 5';
"""
TABLES: Final = [
    "oblivion.alembic_version",
    *sorted(f"{table.schema or 'public'}.{table.name}" for table in metadata.tables.values() if not table.is_view),
]


def blocks() -> dict[str, list[tuple[str, str]]]:
    """The fenced blocks below each heading, as (kind, text)."""
    found = defaultdict(list)
    heading = ""
    for match in re.finditer(
        r"^#+ (?P<heading>[^\n]*)$|^```(?P<kind>\w+)\n(?P<text>.*?)^```$", PAGE, re.MULTILINE | re.DOTALL
    ):
        if match["kind"]:
            found[heading].append((match["kind"], match["text"]))
        else:
            heading = match["heading"]
    return found


BLOCKS: Final = blocks()


def only(heading: str, kind: str) -> list[str]:
    return [block for its, block in BLOCKS[heading] if its == kind]


def test_each_command_of_the_page_is_run_by_a_test() -> None:
    assert BLOCKS.keys() == RUN_BY.keys() | ELSEWHERE
    assert {test for test in RUN_BY.values() if test not in globals()} == set()
    assert {kind for its in BLOCKS.values() for kind, _ in its} == {"sh", "sql"}


def test_statements_of_a_move_are_those_that_the_tests_of_replication_run() -> None:
    run_there = "\n".join((PROJECT / "tests" / name).read_text() for name in ("replication.py", "test_replication.py"))
    statements = [statement.strip().rstrip(";") for statement in only("Replication", "sql")]
    assert len(statements) == 5
    assert [each for each in statements if each.split("'")[0] not in run_there] == []


def test_mends_of_the_table_run(pair: Callable[..., Pair]) -> None:
    its = pair("owner")
    [table] = re.findall(r"## What mends what\n(.*)", PAGE, re.DOTALL)
    statements = re.findall(r"`((?:SELECT|DELETE) [^`]*)`", table)
    assert len(statements) >= 5
    execute(its.url, "ALTER TABLE user_accounts DISABLE TRIGGER USER; UPDATE user_accounts SET tokens_remaining = 8")
    execute(its.url, "ALTER TABLE user_accounts ENABLE TRIGGER USER; TRUNCATE oblivion.user_usage")
    execute(its.url, "ALTER TABLE token_ledger ALTER id RESTART WITH 1")
    assert run("verify", url=its.url).status == 1
    for statement in statements:
        execute(its.url, statement)
    assert run("-q", "verify", url=its.url).out == ""
    assert query(its.url, "SELECT FROM user_accounts WHERE user_id = 'demo_user'") == []


def programs_of(url: URL) -> Path:
    """The folder of programs of the server's version: newer ones set what an older server does not know."""
    [(version,)] = query(url, "SELECT current_setting('server_version_num')::integer / 10000")
    psql = embedded.binary("psql")
    own = [psql.parent] if psql is not None and int(str(version)) == embedded.VERSIONS[-1] else []
    for folder in (*own, Path(f"/usr/lib/postgresql/{version}/bin")):
        if (folder / "pg_restore").exists():
            return folder
    pytest.skip(f"no pg_dump of version {version} here")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Runs a script in an empty folder, with the programs of the server of `database` and ours."""
    ours = tmp_path / "bin"
    ours.mkdir()
    for name in ("oblivion-schema", "alembic"):
        program = ours / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {name.replace("-", "_")} "$@"\n')
        program.chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()

    def sh(script: str, database: URL, new: URL | None = None, **more: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PATH": f"{ours}:{programs_of(database)}:{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT),
            "DATABASE": libpq(database),
            "NEW": libpq(new) if new is not None else "",
        }
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=work,
            env=environment | more,
            capture_output=True,
            text=True,
            check=False,
        )

    return sh


def ended_well(ended: subprocess.CompletedProcess[str]) -> None:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "FAIL" not in ended.stdout + ended.stderr


def contents(url: URL) -> dict[str, list[tuple[object, ...]]]:
    return {table: query(url, f"SELECT t::text FROM {table} AS t ORDER BY 1") for table in TABLES}


class Pair(NamedTuple):
    """A database in use, what is in it, and an empty one of the same owner."""

    url: URL
    new: URL
    there: dict[str, list[tuple[object, ...]]]
    last: int

    def is_restored(self) -> None:
        """The rows are the same, and it goes on from there: a call is billed, and the ledger's numbers go on."""
        now = contents(self.new)
        assert {table for table in TABLES if now[table] != self.there[table]} == set()
        goes_on(self.new, self.last)


def goes_on(url: URL, last: int) -> None:
    """A call is billed, the ledger's numbers go on, and the definitions are those of the code."""
    execute(url, "SELECT start_call('user 9', 'next', 'video'); UPDATE user_accounts SET tokens_remaining = 9")
    [(newest,)] = query(url, "SELECT min(id) FROM token_ledger WHERE kind = 'direct' AND balance = 9")
    assert int(str(newest)) > last
    assert run("check", url=url).status == 0
    assert run("verify", url=url).status == 0


def nothing(_: URL) -> None:
    """Leave a template empty."""


def upgraded_with(url: URL, *options: str) -> None:
    assert run(*options, "upgrade", "head", url=url).status == 0


@pytest.fixture
def pair(new_sort: Callable[..., URL], templates: Callable[..., URL]) -> Callable[..., Pair]:
    """A database in use of one of the sorts, made with options of an upgrade, and an empty one of the same owner."""

    def make(sort: str, *options: str) -> Pair:
        blank = templates(sort, nothing)
        url, new = new_sort(copy_of=templates(blank, upgraded_with, *options)), new_sort(copy_of=blank)
        execute(url, ROWS)
        [(last,)] = query(url, "SELECT max(id) FROM token_ledger")
        return Pair(url, new, contents(url), int(str(last)))

    return make


def test_database_in_use_is_sound(pair: Callable[..., Pair]) -> None:
    assert run("-q", "verify", url=pair("owner").url).out == ""


BOTH: Final = pytest.mark.parametrize("sort", ["superuser", "owner"])


@BOTH
@pytest.mark.few(sort="owner")
def test_whole_dump_needs_nothing_else(pair: Callable[..., Pair], shell: Shell, sort: str) -> None:
    its = pair(sort, "-x", "access=authenticated")
    [dump], [restore] = only("Backup and restore", "sh"), only("The whole", "sh")
    ended_well(shell(dump + restore, its.url, its.new))
    assert run("access", url=its.new).out == "authenticated\n"
    its.is_restored()


@BOTH
@pytest.mark.parametrize("mode", ["open", "authenticated"])
@pytest.mark.few(sort="owner", mode="authenticated")
def test_restore_without_privileges_is_healed_by_the_switch(
    pair: Callable[..., Pair], shell: Shell, sort: str, mode: str
) -> None:
    its = pair(sort, "-x", f"access={mode}")
    [dump], [commands] = only("Backup and restore", "sh"), only("Without privileges", "sh")
    restore, healing = commands.split("\n", 1)
    ended_well(shell(dump + restore, its.url, its.new))
    # Between the two commands it is what the page warns of.
    assert query(
        its.new, "SELECT has_function_privilege('anon', 'reap_stale_calls(interval, integer, interval)', 'EXECUTE')"
    ) == [(True,)]
    assert f"run oblivion-schema access {mode}" in run("-q", "verify", url=its.new).out
    ended_well(shell(healing, its.url, its.new))
    assert run("access", url=its.new).out == f"{mode}\n"
    its.is_restored()


def loaded(dump: str) -> str:
    """The script that loads rows."""
    [commands] = only("Rows alone", "sh")
    return dump + two_files() + commands


def two_files() -> str:
    """What writes the two files that the page shows."""
    files = zip(("before", "after"), only("Rows alone", "sql"), strict=True)
    return "".join(f"cat > {name}.sql <<'END OF FILE'\n{written}END OF FILE\n" for name, written in files)


@BOTH
@pytest.mark.parametrize("dump", ["-Fc -f whole.dump", "-Fc --data-only -f whole.dump"], ids=["whole", "data only"])
@pytest.mark.few(sort="owner", dump="-Fc --data-only -f whole.dump")
def test_rows_alone_come_back_exactly(pair: Callable[..., Pair], shell: Shell, sort: str, dump: str) -> None:
    its = pair(sort)
    ended_well(shell(loaded(f'pg_dump {dump} "$DATABASE"\n'), its.url, its.new))
    assert query(its.new, "SELECT tgname FROM pg_trigger WHERE tgenabled <> 'O'") == []
    its.is_restored()


def test_rows_of_another_revision_change_nothing(pair: Callable[..., Pair], shell: Shell) -> None:
    its = pair("owner")
    execute(its.url, "UPDATE oblivion.alembic_version SET version_num = '003'")
    ended = shell(loaded('pg_dump -Fc -f whole.dump "$DATABASE"\n'), its.url, its.new)
    assert ended.returncode != 0
    assert "The rows are of another revision" in ended.stderr
    assert run("verify", url=its.new).status == 0
    assert query(its.new, "SELECT count(*) FROM user_accounts") == [(0,)]


def test_rows_of_schema_public_alone_come_back(pair: Callable[..., Pair], shell: Shell) -> None:
    its = pair("owner")
    [commands] = only("Parts that are not enough", "sh")
    ended_well(shell(two_files() + commands, its.url, its.new))
    now = contents(its.new)
    for table in TABLES:
        if table.startswith("public.") or table == "oblivion.alembic_version":
            assert now[table] == its.there[table], table
    reports = "SELECT t::text FROM {0} AS t ORDER BY 1"
    for report in ("daily_token_usage", "daily_billing_summary", "user_token_summary"):
        assert query(its.new, reports.format(report)) == query(its.url, reports.format(report)), report
    assert query(its.new, "SELECT DISTINCT status FROM active_calls, tick_call(id)") == [("not_billed",)]
    goes_on(its.new, its.last)


def test_dumps_that_are_not_enough_are_refused_with_the_way_on(pair: Callable[..., Pair], shell: Shell) -> None:
    its = pair("superuser")
    for part in ("-n public", "-s"):
        execute(its.new, "DROP SCHEMA IF EXISTS oblivion CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        shell(f'pg_dump -Fc {part} -f part.dump "$DATABASE"; pg_restore -d "$NEW" part.dump || true', its.url, its.new)
        for command in ("inspect", "upgrade head"):
            told = run(*command.split(), url=its.new)
            assert told.status == 1
            assert "docs/operations.md, Rows alone" in told.out + told.err, (part, command)


def test_rows_of_one_table_come_back(pair: Callable[..., Pair], shell: Shell) -> None:
    its = pair("owner")
    [dump], [commands] = only("Backup and restore", "sh"), only("One table", "sh")
    usage = query(its.url, "SELECT count(*) FROM token_usage")
    execute(
        its.url,
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn) VALUES"
        " ('demo_user', 'call', 5, 'video', true)",
    )
    report = "SELECT t::text FROM daily_token_usage AS t ORDER BY 1"
    there = query(its.url, report)
    ended_well(shell(dump, its.url))
    execute(its.url, "DELETE FROM token_usage WHERE user_id = 'demo_user'")
    assert query(its.url, report) != there
    assert query(its.url, "SELECT count(*) FROM token_usage") == usage
    ended_well(shell(commands, its.url, its.new))
    assert query(its.url, report) == there


def test_accounts_and_calls_that_are_gone_come_back_as_the_table_says(pair: Callable[..., Pair], shell: Shell) -> None:
    """What the table below "One table" says of the others."""
    its = pair("owner")
    [dump], [commands] = only("Backup and restore", "sh"), only("One table", "sh")
    ended_well(shell(dump, its.url))
    gone = {"call_sessions": "user_id = 'user 7'", "user_accounts": "user_id = 'user 8'", "user_presence": "true"}
    for table, rows in gone.items():
        execute(its.url, f"DELETE FROM {table} WHERE {rows}")
        copied = commands.replace("token_usage", table).replace("user_id = 'demo_user'", rows)
        if table != "call_sessions":  # it is restored already
            copied = copied.partition("\n")[2]
        ended_well(shell(copied, its.url, its.new))
    assert query(its.url, "SELECT kind FROM token_ledger WHERE user_id = 'user 8' ORDER BY id") == [
        ("opening",),
        ("closing",),
        ("opening",),
    ]


# -- Watching and scheduling


def test_queries_to_watch_find_what_is_wrong_and_nothing_else(pair: Callable[..., Pair], shell: Shell) -> None:
    its = pair("owner")
    [queries], [command] = only("What to watch", "sql"), only("What to watch", "sh")
    each = [statement for statement in queries.split(";\n") if statement.strip()]
    assert len(each) == 4
    assert [query(its.url, statement) for statement in each] == [[]] * 4
    ended = shell(command, its.url)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    execute(
        its.url,
        "UPDATE oblivion.call_meters SET seen_at = seen_at - interval '2 days' WHERE NOT settled;"
        "INSERT INTO oblivion.billing_incidents (session_id, action, error_code, message, first_at, last_at, attempts)"
        " SELECT id, 'tick', '22003', 'too much', now() - interval '2 hours', now(), 2 FROM call_sessions LIMIT 1;",
    )
    with create_engine(its.url, poolclass=NullPool).connect() as connection:
        connection.execute(text("SELECT 1"))
        late = [each[0], each[1], each[2].replace("50000", "1"), each[3].replace("10 minutes", "0 s")]
        found = [len(query(its.url, statement)) for statement in late]
    assert found[0] == 1
    assert all(found[1:]), found
    ended = shell(command, its.url)
    assert ended.returncode == 1
    assert all(line.startswith("FAIL") for line in ended.stdout.splitlines())


@pytest.fixture(scope="module")
def servers() -> Iterator[Callable[..., tuple[URL, Path]]]:
    """Starts servers of programs of a folder; they are stopped, and their data deleted, at the end."""
    home = temporary_home()
    started: list[tuple[Path, Path]] = []
    nobody = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}

    def do(*command: str | Path) -> None:
        ended = subprocess.run(command, cwd=home, capture_output=True, text=True, check=False, **nobody)  # type: ignore[call-overload]
        assert ended.returncode == 0, ended.stdout + ended.stderr

    def start(programs: Path, settings: str = "") -> tuple[URL, Path]:
        folder = home / f"server{len(started)}"
        folder.mkdir()
        if nobody:
            shutil.chown(home, "nobody")
            shutil.chown(folder, "nobody")
        data = folder / "data"
        do(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        with (data / "postgresql.conf").open("a") as conf:
            conf.write(f"listen_addresses = ''\nunix_socket_directories = '{folder}'\nfsync = off\n{settings}")
        started.append((programs, data))
        with (folder / "started").open("w") as log:
            command = [programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "start"]
            subprocess.run(command, cwd=home, stdout=log, stderr=log, check=True, **nobody)  # type: ignore[call-overload]
        return make_url(f"postgresql+psycopg2://postgres@/postgres?host={folder}"), data

    yield start
    for programs, data in started:
        command = [programs / "pg_ctl", "-D", data, "-m", "immediate", "stop"]
        subprocess.run(command, cwd=home, capture_output=True, check=False, **nobody)  # type: ignore[call-overload]
    shutil.rmtree(home, ignore_errors=True)


FIFTEEN: Final = Path("/usr/lib/postgresql/15/bin")
CRON: Final = FIFTEEN.parent / "lib" / "pg_cron.so"


def lines_of_cron() -> list[str]:
    [lines] = only("The scheduler", "sh")
    return lines.splitlines()


def test_schedulers_lines_run_as_written(pair: Callable[..., Pair], shell: Shell) -> None:
    its = pair("owner")
    execute(its.url, "UPDATE oblivion.call_meters SET seen_at = seen_at - interval '1 hour' WHERE NOT settled")
    for line in lines_of_cron():
        *times, command = line.split(maxsplit=5)
        assert len(times) == 5
        assert "postgresql://..." in command
        ended = shell(command.replace("postgresql://...", shlex.quote(libpq(its.url))), its.url)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", ""), line
    assert query(its.url, "SELECT count(*) FROM active_calls") == [(0,)], "the reaper came first"
    # pg_cron's statements, as their scheduler sends them.
    [statements] = only("The scheduler", "sql")
    jobs = re.findall(r"'(SELECT count.*?)'\)|\$\$(.*?)\$\$", statements)
    assert len(jobs) == 6
    for job in map("".join, jobs):
        if "cron." not in job:
            query(its.url, job)
    assert run("-q", "verify", url=its.url).out == ""


@pytest.mark.full
@pytest.mark.skipif(not CRON.exists(), reason="pg_cron is not installed (Debian's package is postgresql-15-cron)")
def test_pg_cron_runs_its_lines(servers: Callable[..., tuple[URL, Path]]) -> None:
    """A real pg_cron wakes up once a minute."""
    settings = "shared_preload_libraries = 'pg_cron'\ncron.use_background_workers = on\nmax_worker_processes = 20\n"
    url, _ = servers(FIFTEEN, settings)
    oblivion_schema.upgrade(url)
    execute(url, ROWS)
    execute(url, "UPDATE oblivion.call_meters SET seen_at = seen_at - interval '1 hour' WHERE NOT settled")
    execute(url, "CREATE EXTENSION pg_cron")
    [statements] = only("The scheduler", "sql")
    execute(url, statements)
    ran = "SELECT DISTINCT jobname FROM cron.job_run_details JOIN cron.job USING (jobid) WHERE status = 'succeeded'"
    deadline = time.monotonic() + 130
    while len(query(url, ran)) < 2:
        assert time.monotonic() < deadline, query(url, "SELECT * FROM cron.job_run_details")
        time.sleep(1)
    assert {("reap stale calls",), ("burn calls of metered pages",)} <= set(query(url, ran))
    assert query(url, "SELECT * FROM cron.job_run_details WHERE status = 'failed'") == []
    assert query(url, "SELECT count(*) FROM active_calls") == [(0,)]


# -- Moves


@pytest.mark.full
@pytest.mark.skipif(not (FIFTEEN / "pg_upgrade").exists(), reason="PostgreSQL 15 is not installed in Debian's place")
@pytest.mark.skipif(not embedded.is_installed(), reason="the embedded PostgreSQL 18 is not installed")
def test_pg_upgrade_keeps_everything(servers: Callable[..., tuple[URL, Path]], shell: Shell, tmp_path: Path) -> None:
    url, data = servers(FIFTEEN)
    oblivion_schema.upgrade(url, access="authenticated")
    execute(url, ROWS)
    there = contents(url)
    [(last,)] = query(url, "SELECT max(id) FROM token_ledger")
    psql = embedded.binary("psql")
    assert psql is not None
    new = data.with_name("new")
    [commands] = only("A new major version", "sh")
    its, ours = commands.split("oblivion-schema", 1)
    # The server's own user does it; its socket is where the old one's was.
    sockets = f"-c listen_addresses= -c unix_socket_directories={data.parent}"
    its = its.replace("-l server.log start", f"-l server.log -o '{sockets}' start")
    its = its.replace("-U postgres\n", f"-U postgres -s {data.parent}\n").replace("--all", f"-h {data.parent} --all")
    environment = {"OLD_BIN": str(FIFTEEN), "NEW_BIN": str(psql.parent), "OLD_DATA": str(data), "NEW_DATA": str(new)}
    nobody = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    with (tmp_path / "said").open("w") as said:  # a pipe would stay open as long as the server runs
        ended = subprocess.run(
            ["bash", "-euxc", its],
            cwd=data.parent,
            env=os.environ | environment,
            stdout=said,
            stderr=said,
            check=False,
            **nobody,  # type: ignore[call-overload]
        )
    try:
        assert ended.returncode == 0, (tmp_path / "said").read_text()
        assert query(url, "SELECT current_setting('server_version_num')::integer / 10000") == [(18,)]
        ended_well(shell("oblivion-schema" + ours, url))
        assert contents(url) == there
        assert run("access", url=url).out == "authenticated\n"
        goes_on(url, int(str(last)))
    finally:
        stop = [psql.parent / "pg_ctl", "-D", new, "-m", "immediate", "stop"]
        subprocess.run(stop, cwd=data.parent, capture_output=True, check=False, **nobody)  # type: ignore[call-overload]


@pytest.mark.full
def test_restore_where_the_roles_are_missing(pair: Callable[..., Pair], shell: Shell) -> None:
    """Roles belong to a server, so this needs one of its own."""
    its = pair("superuser", "-x", "access=authenticated")
    home = temporary_home()
    started = embedded.start(home / "server", at_exit="delete")
    try:
        bare = embedded.url(started)
        [dump], [commands], [roles] = (
            only("Backup and restore", "sh"),
            only("Without privileges", "sh"),
            only("Without privileges", "sql"),
        )
        restore, healing = commands.split("\n", 1)
        ended_well(shell(dump + restore, its.url, bare))
        assert query(bare, "SELECT FROM pg_roles WHERE rolname = 'anon'") == []
        execute(bare, roles)
        ended_well(shell(healing, its.url, bare))
        assert {row[0] for row in query(bare, "SELECT rolname FROM pg_roles")} >= set(API_ROLES)
        assert contents(bare) == its.there
        # The restore of the whole fails without the roles, and leaves nothing.
        execute(bare, "DROP SCHEMA public, oblivion CASCADE; CREATE SCHEMA public")
        execute(bare, f"DROP OWNED BY {', '.join(API_ROLES)}; DROP ROLE {', '.join(API_ROLES)}")
        [whole] = only("The whole", "sh")
        assert shell(whole, its.url, bare).returncode != 0
        assert query(bare, "SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []
    finally:
        started.cleanup()
        shutil.rmtree(home, ignore_errors=True)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago"])
def test_days_are_utc_days_in_every_time_zone(pair: Callable[..., Pair], zone: str) -> None:
    its = pair("owner")
    reports = "SELECT (t.*)::text FROM daily_token_usage AS t ORDER BY 1"
    there = query(its.url, reports)
    assert there
    execute(its.url, f"ALTER DATABASE {its.url.database} SET timezone = '{zone}'")
    assert query(its.url, "SHOW timezone") == [(zone,)]
    assert query(its.url, reports) == there
    execute(its.url, ROWS.replace("'user ", "'other ").replace("10 years", "11 years"))
    days = "SELECT DISTINCT date(timestamp AT TIME ZONE 'UTC')::text FROM token_usage ORDER BY 1"
    assert query(its.url, "SELECT DISTINCT substr((t.*)::text, 2, 10) FROM daily_token_usage AS t ORDER BY 1") == query(
        its.url, days
    )
    assert run("verify", url=its.url).status == 0
