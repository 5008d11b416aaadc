"""One PostgreSQL for the run, a template database for each worker, a clone of it for each test.

The server is the embedded one, started for this run and deleted after it, or the throw-away one that
OBLIVION_TEST_DATABASE_URL names, as its superuser.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from revisions_cache import build_once
from sqlalchemy import URL, Engine, NullPool, create_engine, make_url
from support import (
    API_ROLES,
    PROJECT,
    QUICK_VARIABLE,
    ROWS_OF_TWO_USERS,
    SERVER_VARIABLE,
    dump,
    execute,
    run,
)

import oblivion_schema
from oblivion_schema.server import embedded
from oblivion_schema.server.database import VARIABLES
from oblivion_schema.testing import FAST, Janitor, as_server, copy, janitor, template, temporary_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import alembic.config
    from legacy_states import State

    from oblivion_schema.testing import Server

# Which values the quick set takes wherever a test runs with each of them; a test's own `few` says otherwise.
_FEW = {
    "database": "supabase-old",
    "shared_database": "supabase-old",
    "upgraded_database": "supabase-old",
    "sort": "supabase-old",
    "state": ("calls only, billing", "presence fixed and safe, billing"),
}
_QUICK = "not full"
_LEFT_OUT = pytest.StashKey[tuple[int, int]]()


def _are_named(config: pytest.Config) -> bool:
    """Whether single tests are asked for, which are run whatever set they are of."""
    return any("::" in argument for argument in config.args) or bool(config.getoption("lf"))


def _keep_bytecode(config: pytest.Config) -> None:
    """Where bytecode may not be written beside its source, keep it in pytest's cache: tests start many Pythons."""
    if sys.dont_write_bytecode and config.cache is not None:
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(config.cache.mkdir("bytecode"))
        sys.dont_write_bytecode = False
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure(config: pytest.Config) -> None:
    """Start the run's server, unless one is given; no test sees the caller's databases."""
    if _are_named(config) and config.option.markexpr == _QUICK:
        config.option.markexpr = ""
    os.environ.pop(QUICK_VARIABLE, None)
    if _QUICK in config.option.markexpr:
        os.environ[QUICK_VARIABLE] = "yes"
    for name in (*VARIABLES, "ALEMBIC_CONFIG"):
        os.environ.pop(name, None)
    _keep_bytecode(config)
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    home = temporary_home()
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    os.environ[embedded.DIRECTORY_VARIABLE] = str(home / "embedded")
    if SERVER_VARIABLE not in os.environ:
        access = home / "pg_hba.conf"
        access.write_text(
            "local all needs_password scram-sha-256\nlocal all all trust\nhost all all 127.0.0.1/32 trust\n"
        )
        server = embedded.start(
            home / "server", settings=f"{FAST}max_connections = 60\nhba_file = '{access}'\n", at_exit="delete"
        )
        config.add_cleanup(server.cleanup)
        os.environ[SERVER_VARIABLE] = embedded.url(server).render_as_string(hide_password=False)
    for role in API_ROLES:
        execute(
            make_url(os.environ[SERVER_VARIABLE]),
            f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
        )
    # The harder case: on Supabase the role goes past row level security, and one that a plain owner made does not.
    execute(make_url(os.environ[SERVER_VARIABLE]), "ALTER ROLE service_role NOBYPASSRLS")
    # As whom PostgREST connects, and what it may become for a request.
    execute(
        make_url(os.environ[SERVER_VARIABLE]),
        "DO $$ BEGIN CREATE ROLE authenticator LOGIN NOINHERIT PASSWORD 'authenticator';"
        f" EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT {', '.join(API_ROLES)} TO authenticator",
    )


def pytest_report_header() -> str:
    """Say which server the tests run on."""
    return (
        f"PostgreSQL: {make_url(os.environ[SERVER_VARIABLE]).render_as_string()}"
        if SERVER_VARIABLE in os.environ
        else ""
    )


def _is_taken(item: pytest.Item, arguments: dict[str, Any]) -> bool:
    """Whether the values that `item` runs with are among those named: by their text, or by their position."""
    callspec = getattr(item, "callspec", None)
    for name, taken in arguments.items():
        if callspec is not None and name in callspec.params:
            several = (taken,) if isinstance(taken, str | int) else taken
            if str(callspec.params[name]) not in several and callspec.indices[name] not in several:
                return False
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the mark `full` to what the mark `few` does not take."""
    quick: set[str] = set()
    few: set[str] = set()
    for item in items:
        test = item.nodeid.partition("[")[0]
        own: dict[str, Any] = {}
        for mark in item.iter_markers("few"):
            own = {**mark.kwargs, **own}
        if _is_taken(item, _FEW | own):
            quick.add(test)
        else:
            few.add(test)
            item.add_marker("full")
    if (lost := few - quick) and not _are_named(config):
        raise pytest.UsageError(f"The quick set takes no case of {', '.join(sorted(lost))}: mend its mark `few`.")
    if config.option.markexpr == _QUICK:
        left = sum(item.get_closest_marker("full") is not None for item in items)
        config.stash[_LEFT_OUT] = left, len(items)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints how much this worker left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(_LEFT_OUT, (0, 0))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what a worker left out: each of them collects the same."""
    left, collected = getattr(node, "workeroutput", {}).get("left_out", (0, 0))
    if left:
        node.config.stash[_LEFT_OUT] = left, collected


@pytest.hookimpl(wrapper=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> Iterator[None]:
    """Say last what was left out; and count the attacks, of which a test repels many."""
    yield
    passed = [dict(report.user_properties).get("attacks", 0) for report in terminalreporter.getreports("passed")]
    if repelled := sum(map(int, passed)):
        terminalreporter.write_line(f"Attacks repelled: {repelled}")
    left, collected = config.stash.get(_LEFT_OUT, (0, 0))
    if left:
        terminalreporter.stats.setdefault("deselected", [None] * left)  # which xdist does not count
        terminalreporter.write_line(
            f"Quick set: {left:,} of {collected:,} tests were left out, and others try fewer cases."
            " pytest -m '' runs all of them."
        )


@pytest.fixture(scope="session", autouse=True)
def _revisions_are_built_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        build_once(monkeypatch)
        yield


@pytest.fixture(scope="session")
def server() -> URL:
    """The server's maintenance database, as superuser."""
    return make_url(os.environ[SERVER_VARIABLE]).set(drivername="postgresql+psycopg2")


@pytest.fixture(scope="session")
def pg_server(server: URL) -> Server:
    """The server as pytest-postgresql's fixtures have it."""
    return as_server(server)


@pytest.fixture(scope="session")
def pg_template(pg_server: Server) -> Iterator[str]:
    """Name of this worker's template of `upgraded`."""
    with template(pg_server, oblivion_schema.upgrade) as name:
        yield name


@pytest.fixture
def upgraded(pg_server: Server, pg_template: str) -> Iterator[URL]:
    """A database of its own at the newest revision, demo accounts included."""
    with copy(pg_server, pg_template) as url:
        yield url


@pytest.fixture(scope="module")
def shared_engine(pg_server: Server, pg_template: str) -> Iterator[Engine]:
    """An engine on a database like `upgraded` that a module's tests share: each of them rolls back."""
    with copy(pg_server, pg_template) as url:
        engine = create_engine(url, poolclass=NullPool)
        yield engine
        engine.dispose()


@pytest.fixture
def engine(upgraded: URL) -> Iterator[Engine]:
    """An engine on `upgraded`."""
    engine = create_engine(upgraded, poolclass=NullPool)
    yield engine
    engine.dispose()


# What Supabase gives its API roles on what the migrating role makes: older projects, and those since 2026.
_DEFAULT_PRIVILEGES = {
    "supabase-old": ("ALL ON TABLES", "ALL ON FUNCTIONS", "ALL ON SEQUENCES"),
    "supabase-new": ("TRUNCATE, REFERENCES, TRIGGER ON TABLES",),
}
SORTS = ("superuser", "owner", *_DEFAULT_PRIVILEGES)


@contextmanager
def _databases(pg_server: Server, server: URL) -> Iterator[Callable[..., URL]]:
    made: list[Janitor] = []
    owners: list[str] = []

    def make(sort: str = "superuser", *, copy_of: URL | None = None) -> URL:
        new = janitor(pg_server, copy_of.database if copy_of is not None else None)
        name = new.dbname
        new.init()
        made.append(new)
        if copy_of is not None:
            execute(server, f"ALTER DATABASE {name} OWNER TO {copy_of.username}")
            return copy_of.set(database=name)
        url = server.set(database=name)
        if sort == "superuser":
            return url
        execute(
            server, f"CREATE ROLE {name} LOGIN NOSUPERUSER PASSWORD '{name}'; ALTER DATABASE {name} OWNER TO {name}"
        )
        owners.append(name)
        its = url.set(username=name, password=name)
        if sort in _DEFAULT_PRIVILEGES:
            everybody = ", ".join(API_ROLES)
            for privileges in _DEFAULT_PRIVILEGES[sort]:
                execute(
                    url,
                    f"ALTER DEFAULT PRIVILEGES FOR ROLE {name} IN SCHEMA public GRANT {privileges} TO {everybody}",
                )
            execute(url, f"GRANT USAGE ON SCHEMA public TO {everybody}")
            execute(its, "CREATE PUBLICATION supabase_realtime")
        return its

    yield make
    for new in made:
        new.drop()
    for name in owners:
        execute(server, f"DROP ROLE {name}")


@pytest.fixture(scope="session")
def templates(pg_server: Server, server: URL) -> Iterator[Callable[..., URL]]:
    """Make a database once for this worker, only to be copied: of one of the `SORTS`, or a copy of such a template.

    `templates(sort_or_template, fill, *of)` calls `fill(url, *of)`, once a day for the same arguments: rows of now are
    compared with others of now, and roll-ups sum by day.
    """
    with _databases(pg_server, server) as make:
        made: dict[tuple[object, ...], URL] = {}

        def filled(origin: str | URL, fill: Callable[..., object], *of: object) -> URL:
            key = datetime.now(UTC).date(), origin, fill, *of
            if key not in made:
                url = make(origin) if isinstance(origin, str) else make(copy_of=origin)
                fill(url, *of)
                made[key] = url
            return made[key]

        yield filled


def _upgraded(url: URL, *options: str) -> None:
    result = run(*options, "upgrade", "head", url=url)
    assert result.status == 0, result


def _by_hand(url: URL, state: State) -> None:
    if state.ran:
        execute(url, state.script(rows=True, by_hand=True))


@pytest.fixture
def upgraded_sort(new_sort: Callable[..., URL], templates: Callable[..., URL]) -> Callable[..., URL]:
    """A database of one of the `SORTS` that was upgraded, with options such as ("-x", "access=authenticated")."""
    return lambda sort, *options: new_sort(copy_of=templates(sort, _upgraded, *options))


@pytest.fixture(scope="session")
def state_by_hand(templates: Callable[..., URL]) -> Callable[[str, State], URL]:
    """Template of one of the `SORTS` in a state that people made, with awkward rows, and with what they added."""
    return lambda sort, state: templates(sort, _by_hand, state)


@pytest.fixture(scope="session")
def adopted_state(
    templates: Callable[..., URL], state_by_hand: Callable[[str, State], URL]
) -> Callable[[str, State], URL]:
    """Template in the same state, once it is upgraded."""
    return lambda sort, state: templates(state_by_hand(sort, state), _upgraded)


@pytest.fixture
def new_sort(pg_server: Server, server: URL) -> Iterator[Callable[..., URL]]:
    """Make an empty database of one of the `SORTS`, or, with `copy_of=url`, a copy, of the same owner."""
    with _databases(pg_server, server) as make:
        yield make


@pytest.fixture
def new_database(pg_server: Server, server: URL) -> Iterator[Callable[..., URL]]:
    """Make an empty database; with `owner=True` owned, and connected to, by a role that may do nothing else."""
    with _databases(pg_server, server) as make:
        yield lambda *, owner=False: make("owner" if owner else "superuser")


@pytest.fixture(params=SORTS)
def database(request: pytest.FixtureRequest, pg_server: Server, server: URL) -> Iterator[URL]:
    """An empty database of each sort: a superuser's, a plain owner's, and an owner's who has Supabase's privileges."""
    with _databases(pg_server, server) as make:
        yield make(str(request.param))


@pytest.fixture(scope="module")
def module_database(pg_server: Server, server: URL) -> Iterator[Callable[..., URL]]:
    """Make a database as `new_sort` does, which a module's tests share."""
    with _databases(pg_server, server) as make:
        yield make


@pytest.fixture(scope="module", params=SORTS)
def shared_database(
    request: pytest.FixtureRequest, module_database: Callable[..., URL], templates: Callable[..., URL]
) -> URL:
    """An upgraded database of each sort that a module's tests share: each of them rolls back."""
    return module_database(copy_of=templates(str(request.param), _upgraded))


@pytest.fixture(params=SORTS)
def upgraded_database(request: pytest.FixtureRequest, upgraded_sort: Callable[..., URL]) -> URL:
    """An upgraded database of each sort."""
    return upgraded_sort(str(request.param))


@pytest.fixture(scope="module")
def as_made(module_database: Callable[..., URL], templates: Callable[..., URL]) -> tuple[URL, str]:
    """A database like `upgraded` that a module's tests share, none of which changes it, and its dump."""
    url = module_database(copy_of=templates("superuser", _upgraded))
    return url, dump(url)


@pytest.fixture(scope="module")
def closed(module_database: Callable[[str], URL]) -> URL:
    """A database in the authenticated mode with the rows of two users, `mine` and `theirs`, that a module shares."""
    url = module_database("supabase-new")
    oblivion_schema.upgrade(url, access="authenticated", demo=False)
    execute(url, ROWS_OF_TWO_USERS)
    return url


@pytest.fixture
def open_to_both(upgraded: URL) -> URL:
    """A database in the open mode with the rows of the same two users."""
    execute(upgraded, ROWS_OF_TWO_USERS)
    return upgraded


@pytest.fixture
def empty(new_database: Callable[..., URL]) -> URL:
    """An empty database."""
    return new_database()


@pytest.fixture
def alembic_config() -> alembic.config.Config:
    """The checkout's configuration, for pytest-alembic."""
    from alembic.config import Config

    return Config(PROJECT / "alembic.ini")


@pytest.fixture
def alembic_engine(empty: URL) -> Iterator[Engine]:
    """An empty database, for pytest-alembic."""
    engine = create_engine(empty, poolclass=NullPool)
    yield engine
    engine.dispose()


@pytest.fixture
def api_login(upgraded: URL, server: URL) -> Iterator[URL]:
    """`upgraded` as PostgREST connects to it: by a role that owns nothing, and may become each of the API's."""
    name = f"{upgraded.database}_api"
    # It inherits, which PostgREST's does not: @supabase/lite sees the tables that its login may use, and no others.
    execute(server, f"CREATE ROLE {name} LOGIN INHERIT PASSWORD '{name}' IN ROLE {', '.join(API_ROLES)}")
    yield upgraded.set(username=name, password=name)
    execute(server, f"DROP ROLE {name}")
