"""Deployers that meet, die or are held up: one at a time, all or nothing."""

from __future__ import annotations

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from support import REVISIONS, dump, execute, query, run, spawn, wait_until

import oblivion_schema
from oblivion_schema.errors import interrupted

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL


@pytest.fixture(scope="module")
def statements(module_database: Callable[[str], URL]) -> int:
    """How many statements an upgrade takes; the tests cut it off at points between."""
    ran: list[object] = []

    def count(*statement: object) -> None:
        ran.append(statement)

    event.listen(Engine, "before_cursor_execute", count)
    try:
        oblivion_schema.upgrade(module_database("superuser"))
    finally:
        event.remove(Engine, "before_cursor_execute", count)
    return len(ran)


@pytest.mark.server
def test_upgrades_started_together_all_end_well(empty: URL) -> None:
    url = empty.render_as_string(hide_password=False)
    deployers = [spawn("python", "-m", "alembic", "-x", f"url={url}", "upgrade", "head") for _ in range(3)]
    ends = [(deployer.communicate(timeout=60), deployer.returncode) for deployer in deployers]
    assert [status for _, status in ends] == [0, 0, 0], ends
    ran = [log.count("Running upgrade") for (_, log), _ in ends]
    assert sorted(ran) == [0, 0, len(REVISIONS)]


def test_upgrade_waits_for_the_one_that_runs_and_says_so(empty: URL) -> None:
    from oblivion_schema.deploy.turns import ADVISORY_LOCK

    with create_engine(empty, poolclass=NullPool).begin() as other:
        other.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
        url = empty.render_as_string(hide_password=False)
        waiting = spawn("python", "-m", "alembic", "-x", f"url={url}", "upgrade", "head")
        assert waiting.stderr is not None
        line = waiting.stderr.readline()
        while "Another upgrade" not in line:
            assert line, "it ended without a word"
            line = waiting.stderr.readline()
        # A waiter that held a snapshot would keep CREATE INDEX CONCURRENTLY, and so itself, waiting for ever.
        snapshots = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL AND state LIKE 'idle%'"
        )
        assert other.scalar(snapshots) == 0
        assert waiting.poll() is None
    assert waiting.wait(timeout=30) == 0
    waiting.communicate()


KILLED_AT = """
import os, signal, sys
from sqlalchemy import Engine, event
import oblivion_schema

left = int(sys.argv[2])

@event.listens_for(Engine, "commit")
def commit(*_):
    os.kill(os.getpid(), signal.SIGKILL)

@event.listens_for(Engine, "before_cursor_execute")
def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

oblivion_schema.upgrade(sys.argv[1])
"""


@pytest.mark.parametrize("point", [0.05, 0.4, 1, 2], ids=["5%", "40%", "last statement", "commit"])
@pytest.mark.few(point=3)
def test_killed_upgrade_leaves_the_old_state_and_runs_again(empty: URL, statements: int, point: float) -> None:
    before = dump(empty)
    url = empty.render_as_string(hide_password=False)
    killed = spawn("python", "-c", KILLED_AT, url, str(int(statements * point)))
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    wait_until(lambda: not query(empty, "SELECT FROM pg_locks WHERE locktype = 'advisory'"))
    assert dump(empty) == before
    assert run("upgrade", "head", url=empty).status == 0


@contextmanager
def held_up(url: URL, table: str, module: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command that waits for `table`, which another session holds."""
    written = url.render_as_string(hide_password=False)
    with create_engine(url, poolclass=NullPool).connect() as holder:
        holder.execute(text(f"LOCK TABLE {table}"))
        waiting = spawn("python", "-m", module, "-x", f"url={written}", *arguments)
        # For several locks at once it polls. Others, who work in other databases of the server, wait for locks, too: a
        # signal that comes between two statements is not heard by the next one.
        waits = (
            "SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')"
        )
        try:
            wait_until(lambda: query(url, waits))
            yield waiting
        finally:
            waiting.kill()
            waiting.communicate()


@pytest.mark.full
def test_upgrade_killed_while_it_waits_in_a_statement_leaves_the_old_state(upgraded: URL) -> None:
    assert run("downgrade", "003", url=upgraded).status == 0
    before = dump(upgraded)
    with held_up(upgraded, "token_usage", "alembic", "-x", "lock-timeout=1min", "upgrade", "head") as waiting:
        waiting.kill()
        waiting.communicate()
    wait_until(lambda: not query(upgraded, "SELECT FROM pg_locks WHERE locktype = 'advisory'"))
    assert dump(upgraded) == before
    assert run("upgrade", "head", url=upgraded).status == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals are otherwise there")
def test_control_c_is_heard_while_a_statement_waits(upgraded: URL) -> None:
    before = dump(upgraded)
    with held_up(upgraded, "token_usage", "alembic", "-x", "lock-timeout=9min", "downgrade", "base") as waiting:
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out) == (255, f"FAILED: {interrupted()}\n")
    assert "Traceback" not in err
    assert dump(upgraded) == before


@pytest.mark.skipif(sys.platform == "win32", reason="signals are otherwise there")
def test_control_c_is_heard_while_verify_waits(upgraded: URL) -> None:
    with held_up(upgraded, "token_rates", "oblivion_schema", "verify") as waiting:
        waiting.send_signal(signal.SIGINT)
        out, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 1
    assert "FAIL" not in out
    assert err.splitlines()[-1].startswith("FAILED: Interrupted. Uncommitted changes were undone"), err


class CutOff:
    """Ends the server's side of a connection before its nth statement."""

    def __init__(self, admin: Engine, after: int) -> None:
        self.admin, self.left = admin, after

    def __call__(self, connection: Connection, *_: Any) -> None:
        """Count a statement; at the last one, end the session that sends it."""
        if connection.engine is self.admin:
            return
        self.left -= 1
        if self.left == 0:
            pid = connection.connection.info["pid"]
            with self.admin.connect() as admin:
                assert admin.scalar(text(f"SELECT pg_terminate_backend({pid}, 5000)"))


@pytest.fixture
def cut_off(server: URL) -> Iterator[Callable[[int], None]]:
    admin = create_engine(server, poolclass=NullPool)
    listening: list[CutOff] = []

    def remember_pid(dbapi_connection: Any, record: Any) -> None:
        record.info["pid"] = dbapi_connection.get_backend_pid()

    def start(after: int) -> None:
        listening.append(CutOff(admin, after))
        event.listen(Engine, "connect", remember_pid)
        event.listen(Engine, "before_cursor_execute", listening[0])

    yield start
    for cut in listening:
        event.remove(Engine, "connect", remember_pid)
        event.remove(Engine, "before_cursor_execute", cut)


@pytest.mark.parametrize("point", [0.05, 0.25, 0.5, 0.75, 1])
@pytest.mark.few(point=2)
@pytest.mark.server
def test_upgrade_cut_off_by_the_server_leaves_the_old_state_or_the_new_one_and_runs_again(
    empty: URL, statements: int, cut_off: Callable[[int], None], point: float
) -> None:
    before = dump(empty)
    cut_off(int(statements * point))
    error = run("upgrade", "head", url=empty).error
    assert "The server ended the connection" in error
    assert "Uncommitted changes were undone: run the command again." in error
    if point > 0.5 and dump(empty) != before:
        # What is reported and filled in afterwards was cut off, not the transaction.
        assert run("check", url=empty).status == 0
    else:
        assert dump(empty) == before
    assert run("upgrade", "head", url=empty).status == 0


def test_table_held_by_another_session_stops_a_downgrade_which_names_it(upgraded: URL) -> None:
    before = dump(upgraded)
    with create_engine(upgraded, poolclass=NullPool).connect() as holder:
        pid = holder.scalar(text("SELECT pg_backend_pid() FROM call_sessions RIGHT JOIN (SELECT) AS one ON true"))
        error = run("-x", "lock-timeout=100ms", "downgrade", "base", url=upgraded).error
    assert f"public.call_sessions is held by process {pid}" in error
    assert "-x lock-timeout=" in error
    assert dump(upgraded) == before


@pytest.mark.server
def test_table_held_by_another_session_stops_an_upgrade_which_names_it(upgraded: URL) -> None:
    assert run("downgrade", "003", url=upgraded).status == 0
    with create_engine(upgraded, poolclass=NullPool).connect() as holder:
        holder.execute(text("UPDATE token_usage SET tokens_used = 0"))
        error = run("-x", "lock-timeout=100ms", "upgrade", "head", url=upgraded).error
    assert "public.token_usage is held by process" in error
    assert "RowExclusiveLock" in error
    assert run("upgrade", "head", url=upgraded).status == 0


def test_lock_timeout_is_in_the_script_too() -> None:
    assert "SET LOCAL lock_timeout = '5s';" in run("upgrade", "head", "--sql").out
    assert "SET LOCAL lock_timeout = '1min';" in run("-x", "lock-timeout=1min", "upgrade", "head", "--sql").out


# -- From Python


def test_upgrade_joins_the_callers_transaction_and_leaves_its_timeout(empty: URL) -> None:
    engine = create_engine(empty, poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '1234ms'"))
        oblivion_schema.upgrade(connection, demo=False)
        assert connection.scalar(text("SHOW lock_timeout")) == "1234ms"
        assert connection.scalar(text("SELECT count(*) FROM user_accounts")) == 0
        connection.rollback()
    assert query(empty, "SELECT to_regclass('public.user_accounts')") == [(None,)]


@pytest.mark.parametrize("kind", ["text", "url", "engine", "connection"])
@pytest.mark.few(kind=("text", "connection"))
def test_upgrade_takes_url_engine_or_connection(empty: URL, kind: str) -> None:
    engine = create_engine(empty, poolclass=NullPool)
    if kind == "connection":
        with engine.connect() as connection:
            oblivion_schema.upgrade(connection)
    else:
        written = empty.render_as_string(hide_password=False)
        targets: dict[str, str | URL | Engine] = {"text": written, "url": empty, "engine": engine}
        oblivion_schema.upgrade(targets[kind])
    assert query(empty, "SELECT count(*) FROM user_accounts") == [(4,)]


def test_upgrade_runs_on_psycopg_3_as_well(empty: URL) -> None:
    oblivion_schema.upgrade(empty.set(drivername="postgresql+psycopg"))
    assert run("check", url=empty).status == 0


@pytest.mark.parametrize("kind", ["url", "engine"])
@pytest.mark.server
def test_upgrade_that_waited_sees_what_was_done_meanwhile_whatever_the_isolation(empty: URL, kind: str) -> None:
    execute(empty, f"ALTER DATABASE {empty.database} SET default_transaction_isolation = 'repeatable read'")
    engine = create_engine(empty, poolclass=NullPool, isolation_level="REPEATABLE READ")
    failures: list[BaseException] = []

    def upgrade() -> None:
        try:
            oblivion_schema.upgrade(empty if kind == "url" else engine)
        except BaseException as failure:  # noqa: BLE001 - told to the test
            failures.append(failure)

    first = create_engine(empty, poolclass=NullPool, isolation_level="READ COMMITTED")
    with first.connect() as connection, connection.begin():
        oblivion_schema.upgrade(connection)
        second = threading.Thread(target=upgrade)
        second.start()
        polling = "SELECT FROM pg_stat_activity WHERE query LIKE '%pg_try_advisory%' AND state LIKE 'idle%'"
        wait_until(lambda: query(empty, polling))
    second.join(timeout=60)
    assert (failures, second.is_alive()) == ([], False)


def test_autocommit_engine_upgrades_all_or_nothing(empty: URL) -> None:
    execute(empty, "CREATE TABLE token_usage (theirs integer)")
    before = dump(empty)
    with pytest.raises(CommandError, match="Nothing was changed"):
        oblivion_schema.upgrade(create_engine(empty, poolclass=NullPool, isolation_level="AUTOCOMMIT"))
    assert dump(empty) == before


@pytest.mark.full
def test_upgrades_in_threads_of_one_process_take_turns(new_database: Callable[..., URL]) -> None:
    urls = [new_database() for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(oblivion_schema.upgrade, urls))
    assert [query(url, "SELECT count(*) FROM user_accounts") for url in urls] == [[(4,)]] * 4


def test_upgrade_within_another_alembic_command_is_refused(empty: URL, tmp_path: Path) -> None:
    (tmp_path / "env.py").write_text(f"import oblivion_schema; oblivion_schema.upgrade({str(empty)!r})")
    (tmp_path / "versions").mkdir()
    theirs = Config()
    theirs.set_main_option("script_location", str(tmp_path))
    with pytest.raises(CommandError, match="called inside an Alembic command"):
        command.upgrade(theirs, "head")


def test_what_an_upgrade_was_told_ends_with_it(empty: URL) -> None:
    with create_engine(empty, poolclass=NullPool).connect() as connection, connection.begin():
        oblivion_schema.upgrade(connection, "002", demo=False)
        oblivion_schema.upgrade(connection)
        assert connection.scalar(text("SELECT count(*) FROM user_accounts")) == 4
