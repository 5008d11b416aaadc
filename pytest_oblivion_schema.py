"""The pytest plugin of oblivion_schema: a database with its schema for each test, and a way to let minutes pass.

docs/testing.md describes the fixtures. pytest loads this module in every run where the package is installed, so it
imports nothing until a test uses a fixture, and is not in the package, whose import loads SQLAlchemy.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

    from sqlalchemy import URL, Engine

    from oblivion_schema.testing import Server


@contextmanager
def _one_line() -> Iterator[None]:
    """Fail with the text of an error that the user can fix, and without its traceback."""
    try:
        from alembic.util import CommandError

        import oblivion_schema.testing  # noqa: F401 - it needs what the extra installs
    except ModuleNotFoundError as error:
        pytest.fail(f"No module {error.name}: install oblivion-schema[testing].", pytrace=False)
    try:
        yield
    except CommandError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="session")
def oblivion_server() -> Iterator[Server]:
    """The server: that of OBLIVION_TEST_DATABASE_URL, or an embedded one. Override it by one of pytest-postgresql."""
    with _one_line():
        from oblivion_schema.testing import running_server

        with running_server() as server:
            yield server


@pytest.fixture(scope="session")
def oblivion_build() -> Callable[[URL], object]:
    """What fills the template, once for a session. Override it for other options, and for tables of your own."""
    from oblivion_schema import upgrade

    return lambda url: upgrade(url, demo=False)


@pytest.fixture(scope="session")
def oblivion_template(oblivion_server: Server, oblivion_build: Callable[[URL], object]) -> Iterator[str]:
    """Name of the database that each test gets a copy of."""
    with _one_line():
        from oblivion_schema.testing import template

        with template(oblivion_server, oblivion_build) as name:
            yield name


@pytest.fixture
def oblivion_url(oblivion_server: Server, oblivion_template: str) -> Iterator[URL]:
    """URL of a database of the test's own, for psycopg2; `.set(drivername=...)` gives that of another driver."""
    from oblivion_schema.testing import copy

    with copy(oblivion_server, oblivion_template) as url:
        yield url


@pytest.fixture
def oblivion_async_url(oblivion_url: URL) -> URL:
    """The same database for `create_async_engine()`: by asyncpg if that is installed, else by psycopg."""
    from oblivion_schema.testing import asynchronous

    return asynchronous(oblivion_url)


@pytest.fixture
def oblivion_engine(oblivion_url: URL) -> Iterator[Engine]:
    """An engine on the same database, as the owner of the tables."""
    from sqlalchemy import create_engine

    engine = create_engine(oblivion_url)
    yield engine
    engine.dispose()


@pytest.fixture
def oblivion_account(oblivion_engine: Engine) -> Callable[..., str]:
    """`oblivion_account("ada", tokens=100)` opens an account, and returns its user_id."""
    from oblivion_schema.testing import open_account

    return lambda user_id="ada", *, tokens=100: open_account(oblivion_engine, user_id, tokens)


@pytest.fixture
def oblivion_pass_time(oblivion_engine: Engine) -> Callable[..., None]:
    """`oblivion_pass_time(session_id, minutes=2.5)` lets minutes pass for a call whose start is committed."""
    from datetime import timedelta

    from oblivion_schema.testing import pass_time

    def let_pass(session_id: UUID, *, minutes: float = 0, seconds: float = 0) -> None:
        pass_time(oblivion_engine, session_id, timedelta(minutes=minutes, seconds=seconds))

    return let_pass
