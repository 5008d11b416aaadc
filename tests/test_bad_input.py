"""Mistakes of whoever runs a command: one clear line, nothing changed, an exit status other than 0."""

from __future__ import annotations

import os
import traceback
from typing import TYPE_CHECKING

import pytest
from alembic.util import CommandError
from sqlalchemy import NullPool, create_engine, make_url
from support import dump, execute, run, spawn

import oblivion_schema
from oblivion_schema.errors import UserError
from oblivion_schema.server.choice import find

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "cause", "fix"),
    [
        ("postgresql://u:{}@no-such-host.invalid/d", "could not translate host name", "Check the host name"),
        ("postgresql://u:{}@127.0.0.1:1/d", "Connection refused", "Check that PostgreSQL runs there, and the port"),
        ("postgresql:///d?host=/no/such/folder&password={}", "No such file", "the socket's folder"),
        ("postgresql+nonsense://u:{}@h/d", "No driver for postgresql+nonsense://", "use postgresql://"),
        ("postgresql+asyncpg://u:{}@h/d", "postgresql+asyncpg:// is an asynchronous driver", "give postgresql://"),
        ("postgresql+psycopg_async://u:{}@h/d", "is an asynchronous driver", "give postgresql://"),
        ("mysql://u:{}@h/d", "names mysql://", "runs on PostgreSQL"),
        ("postgresql://u:{}@h:port/d", "no database URL", "percent-encode"),
        ("postgresql://u:a@{}@h/d", "no database URL", "percent-encode"),
        ("postgresql://u:1/{}@x@h/d", "no database URL", "percent-encode"),
        ("nonsense-{}", "no database URL", "write postgresql://user:password@host:5432/database"),
        ("", "-x url is empty", "write -x url="),
        (
            "postgresql://u:{}@127.0.0.1/d?nonsense=1",
            'invalid connection option "nonsense"',
            "Check the part of the URL behind the",
        ),
        ("postgresql://u:p@{}?x@h/d", "no database URL", "percent-encode"),
        ("postgresql://u:p@x:{}@h/d", "no database URL", "percent-encode"),
    ],
)
def test_wrong_url_is_explained_without_its_password(url: str, cause: str, fix: str) -> None:
    result = run("upgrade", "head", url=url.format(SECRET))
    assert cause in result.error
    assert fix in result.error
    assert SECRET not in result.out + result.err
    with pytest.raises(CommandError) as raised:
        oblivion_schema.upgrade(url.format(SECRET))
    if "percent-encode" in fix:  # a driver's own error, which is chained, never quotes a password
        assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_forgotten_key_of_the_url_does_not_print_its_password() -> None:
    result = run("-x", f"postgresql://u:{SECRET}@h/d", "upgrade", "head")
    assert "Unknown option -x: the options are" in result.error
    assert SECRET not in result.out + result.err


def test_wrong_password_is_explained_and_never_printed(server: URL, empty: URL) -> None:
    execute(
        server, "DO $$ BEGIN CREATE ROLE needs_password LOGIN PASSWORD 'right'; EXCEPTION WHEN OTHERS THEN NULL; END $$"
    )
    url = empty.set(username="needs_password", password=SECRET)
    result = run("current", url=url)
    if result.status == 0:
        pytest.skip("this server trusts every password")
    assert 'password authentication failed for user "needs_password"' in result.error
    assert "Check user and password" in result.error
    assert SECRET not in result.out + result.err


def test_missing_database_is_named(server: URL) -> None:
    error = run("upgrade", "head", url=server.set(database="no_such_database")).error
    assert 'database "no_such_database" does not exist' in error
    assert "Create it first" in error


def test_server_older_than_the_oldest_is_refused(empty: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oblivion_schema.server.database.OLDEST_POSTGRESQL", 99)
    before = dump(empty)
    assert "needs 99 or newer. Upgrade the server" in run("upgrade", "head", url=empty).error
    with create_engine(empty, poolclass=NullPool).connect() as connection, pytest.raises(UserError, match="needs 99"):
        oblivion_schema.upgrade(connection)
    assert dump(empty) == before


def test_server_older_than_15_is_refused() -> None:
    url = os.environ.get("OBLIVION_TEST_OLD_DATABASE_URL")
    if url is None:
        pytest.skip("no server older than 15: set OBLIVION_TEST_OLD_DATABASE_URL to one")
    error = run("upgrade", "head", url=make_url(url)).error
    assert "runs PostgreSQL 14" in error
    assert "needs 15 or newer. Upgrade the server" in error


@pytest.mark.parametrize(
    ("revoke", "message"),
    [
        ("REVOKE CREATE ON SCHEMA public FROM pg_database_owner", "permission denied for schema public"),
        ("ALTER DATABASE {0} OWNER TO {1}", "permission denied for database"),
    ],
    ids=["schema", "database"],
)
@pytest.mark.server
def test_role_that_may_not_create_is_told_what_it_lacks(
    new_database: Callable[..., URL], server: URL, revoke: str, message: str
) -> None:
    url = new_database(owner=True)
    execute(server.set(database=url.database), revoke.format(url.database, server.username))
    before = dump(url)
    error = run("upgrade", "head", url=url).error
    assert message in error
    assert "GRANT CREATE ON DATABASE and ON SCHEMA public" in error
    assert dump(url) == before


def test_unknown_revision_in_the_version_table_is_explained(upgraded: URL) -> None:
    execute(upgraded, "UPDATE oblivion.alembic_version SET version_num = '999'")
    before = dump(upgraded)
    for command in (["upgrade", "head"], ["downgrade", "base"], ["current"], ["check"]):
        error = run(*command, url=upgraded).error
        assert "'999'" in error
        assert "Install the version that has it" in error
    assert dump(upgraded) == before


def test_second_role_that_owns_nothing_is_told_whose_role_to_take(upgraded: URL, server: URL) -> None:
    role = f"{upgraded.database}_other"
    execute(server, f"CREATE ROLE {role} LOGIN")
    try:
        error = run("downgrade", "base", url=upgraded.set(username=role)).error
    finally:
        execute(server, f"DROP ROLE {role}")
    assert "permission denied for schema oblivion" in error
    assert "usually the role that ran the first upgrade" in error


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (
            "demos=no",
            "Unknown option -x demos: the options are access, demo, drop-data, drop-unknown, lock-timeout, pages, url",
        ),
        ("lock-timeout=0s", "-x lock-timeout=0s: give a number and its unit"),
        ("demo", "-x demo=: say demo=yes or demo=no."),
        ("demo=false", "-x demo=false: say demo=yes or demo=no."),
        ("drop-data=1", "-x drop-data=1: say drop-data=yes or drop-data=no."),
        ("lock-timeout=5", "-x lock-timeout=5: give a number and its unit"),
        ("lock-timeout=5s'; DROP TABLE x; --", "-x lock-timeout=5s'; DROP TABLE x; --: give a number"),
    ],
)
@pytest.mark.parametrize("command", [["upgrade", "head"], ["upgrade", "head", "--sql"], ["verify"], ["heads"]])
@pytest.mark.few(command=0)
def test_wrong_option_is_named_before_anything_runs(empty: URL, option: str, message: str, command: list[str]) -> None:
    before = dump(empty)
    assert message in run("-x", option, *command, url=empty).error
    assert dump(empty) == before


@pytest.mark.parametrize("quiet", [[], ["-q"]])
@pytest.mark.few(quiet=0)
def test_alembics_own_command_says_it_once_quiet_or_not(quiet: list[str]) -> None:
    failing = spawn("python", "-m", "alembic", *quiet, "-x", "demo=maybe", "upgrade", "head")
    out, err = failing.communicate(timeout=30)
    assert failing.returncode == 255
    assert (out + err).count("-x demo=maybe: say demo=yes or demo=no.") == 1


def test_psql_explains_an_option_that_libpq_does_not_know() -> None:
    error = run("psql", "-c", "SELECT 1", url=f"postgresql://a:{SECRET}@h/d?nonsense=1").error
    assert 'invalid connection option "nonsense". Check the part of the URL behind the question mark.' in error


def test_first_source_of_the_url_wins() -> None:
    environment = {"OBLIVION_DATABASE_URL": "postgresql:///b", "DATABASE_URL": "postgresql:///c"}
    given: list[tuple[str | None, str, dict[str, str]]] = [
        ("postgresql:///a", "postgresql:///d", environment),
        (None, "postgresql:///d", environment),
        (None, "postgresql:///d", {"DATABASE_URL": "postgresql:///c"}),
        (None, "postgresql:///d", {}),
    ]
    found = [find(*sources) for sources in given]
    assert [database and database.url.database for database in found] == ["a", "b", "c", "d"]
    assert find(None, "", {}) is None


@pytest.mark.parametrize(
    ("written", "driver"),
    [
        ("postgres://h/d", "postgresql+psycopg2"),
        ("postgresql://h/d", "postgresql+psycopg2"),
        ("postgresql+psycopg://h/d", "postgresql+psycopg"),
        ("postgresql+pg8000://h/d", "postgresql+pg8000"),
    ],
)
def test_driver_that_is_named_is_respected(written: str, driver: str) -> None:
    database = find(written, None, {})
    assert database is not None
    assert database.url.drivername == driver


def test_python_caller_gets_the_line_as_an_exception() -> None:
    with pytest.raises(UserError, match=r"Connection refused\. Check that PostgreSQL runs there, and the port\."):
        oblivion_schema.upgrade("postgresql://127.0.0.1:1/d")


@pytest.mark.parametrize(
    ("url", "message"),
    [("postgresql://127.0.0.1:1/d", "Connection refused"), ("sqlite://", "the given engine is sqlite")],
)
def test_engine_that_cannot_be_used_is_explained(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        oblivion_schema.upgrade(create_engine(url))


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "REPEATABLE READ", "SERIALIZABLE"])
def test_connection_that_undoes_nothing_or_sees_nothing_new_is_refused(empty: URL, level: str) -> None:
    before = dump(empty)
    with create_engine(empty, poolclass=NullPool, isolation_level=level).connect() as connection:
        with pytest.raises(UserError, match=f"is in {level.lower()}: give a connection in READ COMMITTED"):
            oblivion_schema.upgrade(connection)
        assert not connection.in_transaction()
    assert dump(empty) == before


def test_without_url_and_embedded_server_the_error_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oblivion_schema.server.embedded.is_installed", lambda: False)
    assert run("upgrade", "head").error.endswith(
        "No database URL: set OBLIVION_DATABASE_URL, or install oblivion-schema[embedded]."
    )


def test_transaction_pooler_is_noticed(empty: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oblivion_schema.server.database._TRANSACTION_POOLER_PORT", empty.port)
    assert "transaction pooler; use port 5432" in run("upgrade", "head", url=empty).err
