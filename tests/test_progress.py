"""Long work shows on a terminal how far it is, and writes nothing of that into a log or a pipe."""

from __future__ import annotations

import os
import select
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from legacy_states import STATES
from sqlalchemy import NullPool, create_engine, text
from support import PROJECT, execute, query, run, spawn, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL, Connection

if sys.platform == "win32":
    pytest.skip("Windows has no pseudo terminals", allow_module_level=True)

import pty

FULL = next(state for state in STATES if state.name == "presence fixed and safe, billing")


class Terminal:
    """A program on a terminal of its own, and what it has written there."""

    def __init__(self, *command: str) -> None:
        self.written = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(PROJECT)
            os.execv(sys.executable, [sys.executable, "-m", *command])

    def read(self) -> bool:
        """Read what is there; False once the program has ended."""
        if not select.select([self.fd], [], [], 0.1)[0]:
            return True
        try:
            more = os.read(self.fd, 65536)
        except OSError:  # the terminal's other end is closed
            more = b""
        self.written += more.decode()
        return bool(more)

    def shows(self, *words: str) -> None:
        """Wait until one line shows all of these words."""
        deadline = time.monotonic() + 60
        while not any(all(word in line for word in words) for line in self.lines()):
            assert self.read(), f"it ended before {words}: {self.written}"
            assert time.monotonic() < deadline, self.written

    def lines(self) -> list[str]:
        return self.written.replace("\r", "\n").splitlines()

    def end(self) -> int:
        while self.read():
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def screen(self) -> list[str]:
        r"""What stands on the screen at the end: a return goes to the start of the line, and `\x1b[K` erases it."""
        found = []
        for line in self.written.split("\n"):
            last = line.removesuffix("\r").rpartition("\x1b[K")[2]
            found.append(last.rpartition("\r")[2])
        return found


@contextmanager
def held(url: URL, sql: str) -> Iterator[Connection]:
    """A session in a transaction that has done `sql`."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        connection.execute(text(sql))
        yield connection


@pytest.fixture
def by_hand(empty: URL) -> URL:
    """A hand-made database, in which a thousand pages of usage have NULLs."""
    execute(empty, FULL.script(rows=True))
    execute(
        empty,
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, timestamp)"
        " SELECT 'demo_user', repeat('s', 200), 1, 'video', false, NULL FROM generate_series(1, 30000)",
    )
    assert query(empty, "SELECT pg_relation_size('token_usage') / 8192") == [(1035,)]
    return empty


def on(url: URL) -> tuple[str, ...]:
    return "oblivion_schema", "-x", f"url={url.render_as_string(hide_password=False)}", "-x", "lock-timeout=1min"


def test_prepare_shows_the_pages_that_it_fills(by_hand: URL) -> None:
    with held(by_hand, "LOCK TABLE token_usage IN ROW EXCLUSIVE MODE") as writer:
        terminal = Terminal(*on(by_hand), "prepare")
        terminal.shows("prepare, ", " s: waits for a lock, token_usage, page 0 of 1035")
        writer.rollback()
    assert terminal.end() == 0, terminal.written
    screen = terminal.screen()
    assert "public.token_usage: filled the NULLs of 30001 rows" in screen
    assert screen[-2:] == ["Prepared: run upgrade head next.", ""]
    assert not any("prepare, " in line for line in screen), screen
    assert query(by_hand, "SELECT FROM pg_stat_activity WHERE application_name LIKE '%page %'") == []


def test_index_build_is_shown_by_its_phase(by_hand: URL) -> None:
    assert run("prepare", url=by_hand).status == 0
    execute(by_hand, "DROP INDEX idx_token_usage_timestamp")
    # The build waits for every session that could write to the table meanwhile.
    with held(by_hand, "UPDATE token_usage SET tokens_used = tokens_used WHERE ctid = '(0,1)'") as writer:
        terminal = Terminal(*on(by_hand), "prepare")
        terminal.shows("prepare, ", " s: waiting for writers", ", 0 of 1 sessions, CREATE INDEX C")
        writer.rollback()
    assert terminal.end() == 0, terminal.written
    assert not any("waiting for" in line for line in terminal.screen())


def test_upgrade_shows_what_it_does_between_its_log_lines(by_hand: URL) -> None:
    with held(by_hand, "SELECT FROM token_usage LIMIT 1") as reader:
        terminal = Terminal(*on(by_hand), "upgrade", "head")
        terminal.shows("upgrade, ", " s")
        reader.rollback()
    assert terminal.end() == 0, terminal.written
    screen = terminal.screen()
    logged = [line for line in screen if "Running upgrade" in line]
    assert all(line.startswith("INFO  [alembic") for line in logged)
    assert len(logged) >= 5
    assert not any(line.startswith("upgrade, ") for line in screen), screen


def test_comparison_shows_that_it_builds(upgraded: URL, empty: URL) -> None:
    url, scratch = (each.render_as_string(hide_password=False) for each in (upgraded, empty))
    with held(empty, "ALTER SCHEMA public RENAME TO aside"):  # so that building waits for longer than nothing is shown
        terminal = Terminal("oblivion_schema", "check", "--against", url, "--scratch", scratch)
        terminal.shows("Building the schema to compare with, ", " s")
    assert terminal.end() == 0, terminal.written
    assert terminal.screen()[-2] == "No difference between the database and the code."


@pytest.mark.parametrize("command", ["prepare", "upgrade head"])
def test_nothing_of_it_goes_into_a_log(by_hand: URL, command: str) -> None:
    with held(by_hand, "LOCK TABLE token_usage IN ROW EXCLUSIVE MODE"):
        program = spawn("python", "-m", *on(by_hand), *command.split())
        # Of several tables at once an upgrade asks again and again.
        waits = "datname = current_database() AND wait_event IN ('relation', 'PgSleep', 'virtualxid')"
        wait_until(lambda: query(by_hand, f"SELECT FROM pg_stat_activity WHERE {waits}"))
        time.sleep(1)  # a terminal would show it by now
    out, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    assert "\r" not in out + err
    assert "\x1b" not in out + err
    assert " s: " not in out + err
    assert all(line.startswith(("Database: ", "INFO  [")) for line in err.splitlines())


def test_fleet_shows_how_far_it_is_and_on_which_sites(upgraded: URL, tmp_path: Path) -> None:
    assert run("downgrade", "004", url=upgraded).status == 0
    file = tmp_path / "sites.toml"
    file.write_text(f'[sites.shop]\nurl = "{upgraded.render_as_string(hide_password=False)}"\n')
    with held(upgraded, "LOCK TABLE token_usage"):
        terminal = Terminal("oblivion_schema", "-x", "lock-timeout=9min", "fleet", str(file), "upgrade")
        terminal.shows("upgrade, ", " s: 0 of 1 site; shop")
    assert terminal.end() == 0
    assert "1 site, " in terminal.screen()[-2]
    assert not any(" 0 of 1 site" in line for line in terminal.screen()), "nothing of it stays"
