"""`oblivion-schema`: Alembic's commands, psql and stop, from a checkout and from an installed wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import distributions
from typing import TYPE_CHECKING

import psutil
import pytest
from hatchling.builders.wheel import WheelBuilder
from support import PROJECT, REVISIONS, query, run, spawn, wait_until

from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL


@pytest.mark.parametrize("command", ["current", "heads", "history", "branches", "show head"])
def test_alembics_commands_are_there(upgraded: URL, command: str) -> None:
    result = run(*command.split(), url=upgraded)
    assert result.status == 0
    assert REVISIONS[-1] in result.out or command == "branches"


def test_history_and_heads_need_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oblivion_schema.server.embedded.is_installed", lambda: False)
    for command in ("history", "heads", "show head"):
        assert REVISIONS[-1] in run(*command.split()).out


def test_version_is_the_packages_own() -> None:
    assert run("--version").out == run("--version", "heads").out
    assert re.fullmatch(r"oblivion-schema \d+\.\d+\.\d+, alembic \d+\.\d+\.\d+\n", run("--version").out)


@pytest.mark.parametrize("source", ["OBLIVION_DATABASE_URL", "DATABASE_URL", "sqlalchemy.url"])
def test_each_source_of_the_url_is_asked(
    upgraded: URL, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = upgraded.render_as_string(hide_password=False)
    ini = tmp_path / "alembic.ini"
    given = f"sqlalchemy.url = {url.replace('%', '%%')}\n" if source == "sqlalchemy.url" else ""
    ini.write_text(f"[alembic]\nscript_location = {PROJECT}/alembic\n{given}")
    if not given:
        monkeypatch.setenv(source, url)
    assert f"{REVISIONS[-1]} (head)" in run("-c", str(ini), "current").out


def test_missing_configuration_file_is_named() -> None:
    assert "-c nowhere.ini: the file does not exist." in run("-c", "nowhere.ini", "heads").error


def test_command_without_words_is_refused_with_its_usage() -> None:
    result = run()
    assert result.status == 2
    assert "usage: oblivion-schema" in result.err


@pytest.mark.parametrize("words", ["upgrade -x demo=no head", "upgrade head -xdemo=no", "verify -q", "check --json -q"])
def test_option_behind_the_command_is_told_its_place(words: str) -> None:
    result = run(*words.split())
    assert result.status == 2
    assert re.fullmatch(r"FAILED: -(xdemo=no|x|q) stands before the command: oblivion-schema -x .*\n", result.err)


def test_unknown_option_is_refused() -> None:
    assert "unrecognized arguments: --demo" in run("upgrade", "head", "--demo").err


@pytest.mark.parametrize("program", ["alembic", "oblivion_schema"])
@pytest.mark.parametrize("command", ["upgrade head --sql", "downgrade 005:base --sql"])
def test_output_that_nobody_reads_to_its_end_is_no_error(program: str, command: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", program, *command.split()],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout
        assert writer.stderr
        assert writer.stdout.readline()
        writer.stdout.close()
        assert "Error" not in writer.stderr.read()
    assert writer.returncode == 141


@pytest.mark.full
def test_psql_gets_all_further_arguments_and_no_password(upgraded: URL) -> None:
    url = upgraded.set(password="hunter2").render_as_string(hide_password=False)
    sql = "SELECT user_id FROM user_token_summary WHERE user_id = 'demo_user'"
    psql = spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", "psql", "-X", "-At", "-c", sql)
    out, err = psql.communicate(timeout=30)
    assert (psql.returncode, out.strip()) == (0, "demo_user"), err
    failing = spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", "psql", "-Xc", "SELECT nonsense")
    failing.communicate(timeout=30)
    assert failing.returncode == 1


@pytest.mark.user
def test_psql_is_told_every_host_and_option_and_the_password_by_its_environment_alone(tmp_path: Path) -> None:
    spy = tmp_path / "psql"
    spy.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\necho "$PGPASSWORD" > {tmp_path}/password\n')
    spy.chmod(0o755)
    url = "postgresql://me:hunter2@/shop?host=a:1&host=b:2&application_name=till&channel_binding=require"
    command = ["python", "-m", "oblivion_schema", "-x", f"url={url}", "psql", "-c", "SELECT 1"]
    ended = spawn(*command, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (ended.communicate(timeout=30), ended.returncode) == (("", "Database: me@a:1,b:2/shop (-x url)\n"), 0)
    arguments = (tmp_path / "arguments").read_text()
    assert "hunter2" not in arguments
    for told in ("host=a,b", "port=1,2", "user=me", "dbname=shop", "application_name=till", "channel_binding=require"):
        assert told in arguments
    assert arguments.endswith(" -c SELECT 1\n")
    assert (tmp_path / "password").read_text() == "hunter2\n"


@pytest.mark.skipif(os.name != "posix", reason="Windows has no exec")
@pytest.mark.full
def test_psql_takes_our_place_so_that_control_c_ends_its_query_and_not_itself(upgraded: URL) -> None:
    url = upgraded.render_as_string(hide_password=False)
    waiting = spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", "psql", "-Xc", "SELECT pg_sleep(60)")
    wait_until(lambda: query(upgraded, "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
    name = psutil.Process(waiting.pid).name()
    waiting.kill()
    waiting.communicate()
    assert name == "psql"


@pytest.mark.user
@pytest.mark.full
def test_installed_wheel_upgrades_away_from_the_checkout(empty: URL, tmp_path: Path) -> None:
    [wheel] = WheelBuilder(str(PROJECT)).build(directory=str(tmp_path), versions=["standard"])
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", site, wheel], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # A service's own Alembic must not be taken for ours.
    (elsewhere / "alembic.ini").write_text("[alembic]\nscript_location = nowhere\n")
    program = [sys.executable, "-m", "oblivion_schema", "-x", f"url={empty.render_as_string(hide_password=False)}"]
    environment = {"PYTHONPATH": str(site), "PATH": ""}
    commands = ("inspect", "prepare", "upgrade head", "verify", "check", "history", "reap", "settle")
    for command in map(str.split, commands):
        ended = subprocess.run(
            [*program, *command], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    refused = subprocess.run(
        [*program, "revision", "-m", "x"], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert "takes no new revisions: write them in a checkout" in refused.stderr
    code = "import oblivion_schema; print(oblivion_schema.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert where.stdout.startswith(str(site))
    package = site / "oblivion_schema"
    assert (package / "py.typed").is_file()
    [distribution] = distributions(path=[str(site)])
    plugins = [entry.value for entry in distribution.entry_points.select(group="pytest11")]
    assert plugins == ["pytest_oblivion_schema"]
    assert (site / "pytest_oblivion_schema.py").is_file()
    for installed, source in ((package, "oblivion_schema"), (package / "migrations", "alembic")):
        files = {file.relative_to(PROJECT / source) for file in (PROJECT / source).rglob("*.sql")}
        assert files <= {file.relative_to(installed) for file in installed.rglob("*.sql")}
    assert query(empty, "SELECT version_num FROM oblivion.alembic_version") == [(REVISIONS[-1],)]


@pytest.mark.user
def test_stop_says_when_there_is_nothing_to_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(embedded.DIRECTORY_VARIABLE, str(tmp_path))
    result = run("stop")
    assert (result.status, result.out) == (
        0,
        f"Not running: embedded PostgreSQL in {tmp_path}/postgresql-{embedded.version()}\n",
    )
    assert "leave out -x url" in run("-x", "url=postgresql:///shop", "stop").error
