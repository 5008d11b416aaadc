"""Every command says on stderr which database it spoke to; what changes access or calls takes none by mistake."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest
from support import NAMES_IT, PROJECT, query, run, spawn, temporary_home

from oblivion_schema.errors import UserError
from oblivion_schema.server import embedded
from oblivion_schema.server.choice import choose, find

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

VARIABLE = "OBLIVION_DATABASE_URL"
SECRET = "hunter2"
# In an order in which each works, and none changes what the others print.
COMMANDS = (
    "inspect",
    "prepare",
    "upgrade head",
    "verify",
    "check",
    "current",
    "history -i",
    "stamp head",
    "access",
    "access open",
    "pages",
    "pages trusted",
    "burn",
    "reap",
    "settle",
    "downgrade -1",
)
CHANGING = ("access open", "pages trusted", "burn", "reap", "settle")


def written(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def place(url: URL) -> str:
    host = url.query.get("host") or url.host
    return f"{url.username}@{host}:{url.port}/{url.database}"


def said(err: str) -> list[str]:
    return [line.removeprefix(NAMES_IT) for line in err.splitlines() if line.startswith(NAMES_IT)]


def test_every_command_names_its_database_in_one_line_and_not_on_stdout(empty: URL) -> None:
    url = empty.set(password=SECRET)
    for command in COMMANDS:
        result = run(*command.split(), url=url)
        assert result.status == 0, result
        assert list(result.named) == [f"{place(url)} (-x url)"], command
        assert "Database:" not in result.out, command
        assert SECRET not in f"{result}", command


@pytest.mark.parametrize("module", ["alembic", "oblivion_schema"])
def test_alembics_own_program_names_it_too_and_psql(upgraded: URL, module: str) -> None:
    program = spawn("python", "-m", module, "current", **{VARIABLE: written(upgraded)})
    out, err = program.communicate(timeout=60)
    assert said(err) == [f"{place(upgraded)} ({VARIABLE})"]
    assert "Database:" not in out
    if module == "oblivion_schema":
        program = spawn("python", "-m", module, "psql", "-XAtc", "SELECT 1", **{VARIABLE: written(upgraded)})
        assert program.communicate(timeout=60) == ("1\n", f"{NAMES_IT}{place(upgraded)} ({VARIABLE})\n")


def test_both_databases_of_a_comparison_are_named(upgraded: URL, empty: URL) -> None:
    result = run("check", "--against", written(upgraded.set(password=SECRET)), "--scratch", written(empty))
    assert result.status == 0, result
    assert list(result.named) == [f"{place(upgraded)} (--against)", f"{place(empty)} (--scratch)"]
    assert SECRET not in f"{result}"


def test_what_libpq_adds_to_the_url_is_named(upgraded: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    host = upgraded.query.get("host") or upgraded.host
    for name, value in {"HOST": host, "PORT": upgraded.port, "USER": upgraded.username}.items():
        monkeypatch.setenv(f"PG{name}", str(value))
    monkeypatch.setenv("DATABASE_URL", f"postgresql:///{upgraded.database}")
    assert list(run("current").named) == [f"{place(upgraded)} (DATABASE_URL)"]


def test_database_of_the_configuration_file_is_named(upgraded: URL, tmp_path: Path) -> None:
    ini = tmp_path / "alembic.ini"
    url = written(upgraded).replace("%", "%%")
    ini.write_text(f"[alembic]\nscript_location = {PROJECT}/alembic\nsqlalchemy.url = {url}\n")
    line = f"{place(upgraded)} (sqlalchemy.url in alembic.ini)"
    assert list(run("-c", str(ini), "reap").named) == [line]


def test_url_comes_from_the_first_source_that_names_one(upgraded: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nowhere.invalid/b")
    monkeypatch.setenv(VARIABLE, written(upgraded))
    assert list(run("current").named) == [f"{place(upgraded)} ({VARIABLE})"]


@pytest.mark.parametrize("value", ["", "  "])
@pytest.mark.parametrize("name", [VARIABLE, "DATABASE_URL"])
def test_empty_variable_is_refused_by_every_command(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    for command in (*COMMANDS, "psql"):
        result = run(*command.split())
        assert result.error.startswith(f"FAILED: {name} is set and empty"), command
        assert f"or unset {name}." in result.error
    assert run("heads").status == 0, "it needs no database"


def test_empty_variable_does_not_matter_behind_a_url_that_is_given(
    upgraded: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv(VARIABLE, written(upgraded))
    assert run("current").status == 0
    monkeypatch.setenv(VARIABLE, "")
    assert run("current", url=upgraded).status == 0


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("OBLIVION_DATBASE_URL", "", VARIABLE),
        ("OBLIVION_DATABASE_URI", "x", VARIABLE),
        ("OBLIVION_DATABASEURL", "x", VARIABLE),
        ("OBLVION_DATABASE_URL", "x", VARIABLE),
        ("oblivion_database_url", "x", VARIABLE),
        ("OBLIVION_DB_URL", "postgresql://h/d", VARIABLE),
        ("OBLIVION_URL", "postgres://h/d", VARIABLE),
        ("OBLIVION_EMBEDED_DIR", "/tmp", "OBLIVION_EMBEDDED_DIR"),
    ],
)
def test_misspelled_variable_is_named_and_stops_what_changes(
    upgraded: URL, name: str, value: str, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", written(upgraded))
    monkeypatch.setenv(name, value)
    words = f"{name} is not read: did you mean {meant}?"
    assert list(run("current").named) == [f"{place(upgraded)} (DATABASE_URL). {words}"]
    [(before,)] = query(upgraded, "SELECT oblivion.open_access()")
    for command in CHANGING:
        assert run(*command.split()).error.startswith(f"FAILED: {words} Correct its name"), command
    assert query(upgraded, "SELECT oblivion.open_access()") == [(before,)]
    # It would not have come before these.
    assert words not in run("reap", url=upgraded).named[0]
    monkeypatch.setenv(VARIABLE, written(upgraded))
    assert words not in run("reap").named[0]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OBLIVION_BASE_URL", "https://example.org"),
        ("OBLIVION_API_URL", "https://example.org"),
        ("OBLIVION_REPLICA_URL", "postgresql://h/d"),
        ("OBLIVION_TEST_DATABASE_URL", "postgresql://h/d"),
        ("PGDATABASE", "postgres"),
        ("MY_DATABASE_URL", "postgresql://h/d"),
    ],
)
def test_variable_of_another_program_is_not_taken_for_ours(name: str, value: str) -> None:
    found = choose(None, "postgresql://h/d", {name: value}, unnamed="running")
    assert found.note == ""


def test_quiet_command_says_it_only_if_it_matters(upgraded: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("-q", "verify", url=upgraded).named == ()
    assert run("-q", "reap", url=upgraded).named == ()
    monkeypatch.setenv("DATABASE_URL", written(upgraded))
    monkeypatch.setenv("OBLIVION_DATBASE_URL", "x")
    assert "did you mean" in run("-q", "verify").named[0]


def test_quiet_verify_prints_failures_alone(upgraded: URL) -> None:
    assert (run("-q", "verify", url=upgraded).out, run("-q", "settle", url=upgraded).out) == ("", "")
    query(upgraded, "DELETE FROM token_rates WHERE mode = 'video' RETURNING 1")
    loud, quiet = run("verify", url=upgraded), run("-q", "verify", url=upgraded)
    assert (loud.status, quiet.status) == (1, 1)
    failures = [line for line in loud.out.splitlines() if line.startswith("FAIL")]
    assert quiet.out.splitlines() == failures != []


def test_script_of_an_upgrade_keeps_the_servers_notices_back() -> None:
    assert "SET LOCAL client_min_messages = 'warning';" in run("upgrade", "head", "--sql").out


# -- The embedded server


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for an embedded database of its own."""
    path = temporary_home()
    monkeypatch.setenv(embedded.DIRECTORY_VARIABLE, str(path))
    yield path
    embedded.stop(embedded.data_directory())
    shutil.rmtree(path)


@pytest.mark.user
def test_no_embedded_server_is_made_or_started_by_what_changes(home: Path) -> None:
    assert find(None, None, {}) is None
    for command in CHANGING:
        error = run(*command.split()).error
        assert re.match(r"FAILED: No database is named, and .* set OBLIVION_DATABASE_URL, or ", error), command
        assert list(home.iterdir()) == [], command
    directory = embedded.data_directory()
    made = run("upgrade", "head")
    hint = "Open it: oblivion-schema psql. Stop it: oblivion-schema stop."
    assert list(made.named) == [f"embedded PostgreSQL at {directory} (no URL is given). {hint}"]
    for command in CHANGING:
        result = run(*command.split())
        assert (result.status, list(result.named)) == (
            0,
            [f"embedded PostgreSQL at {directory} (no URL is given)"],
        ), command
    for command in CHANGING:
        embedded.stop(directory)
        result = run(*command.split())
        if command in {"access open", "pages trusted"}:
            assert result.named[0].endswith("Stop it: oblivion-schema stop."), command
        else:
            assert f"the embedded PostgreSQL in {directory} is not running" in result.error
            assert not (directory / "postmaster.pid").exists(), command


def test_misspelled_variable_that_others_read_stops_what_changes() -> None:
    with pytest.raises(UserError, match="DATABSE_URL is not read: did you mean DATABASE_URL"):
        choose(None, None, {"DATABSE_URL": "postgresql://host/shop"}, unnamed="running")
