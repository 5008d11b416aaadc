"""Asynchronous engines, of asyncpg and of psycopg, do what a synchronous one does."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from alembic.util import CommandError
from sqlalchemy import insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from support import PROJECT, dump, execute, query

from oblivion_schema import billing, call_sessions, metadata, upgrade
from oblivion_schema.billing import end_call, start_call, tick_call, top_up
from oblivion_schema.errors import explain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from sqlalchemy import URL

pytestmark = [pytest.mark.server, pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])]

PAGE = (PROJECT / "docs" / "python.md").read_text(encoding="utf-8")
CODE = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def run(url: URL, driver: str, do: Callable[[AsyncEngine], Awaitable[Any]]) -> Any:
    """What `do(engine)` returns."""

    @asynccontextmanager
    async def engine() -> AsyncIterator[AsyncEngine]:
        made = create_async_engine(url.set(drivername=f"postgresql+{driver}"))
        try:
            yield made
        finally:
            await made.dispose()

    async def main() -> Any:
        async with engine() as made:
            return await do(made)

    return asyncio.run(main())


def test_tables_and_views_are_read(upgraded: URL, driver: str) -> None:
    async def read(engine: AsyncEngine) -> list[list[Any]]:
        async with engine.begin() as connection:
            await connection.execute(insert(call_sessions).values(room_id="lobby", mode="video", user_id="demo_user"))
            return [list(await connection.execute(select(table))) for table in metadata.tables.values()]

    tables = run(upgraded, driver, read)
    assert sum(map(len, tables)) > 10


def test_every_function_of_billing_runs(upgraded: URL, driver: str) -> None:
    async def use(engine: AsyncEngine) -> dict[str, Any]:
        async with engine.begin() as connection:
            call = (await connection.execute(select(start_call("demo_user", "lobby", "video")))).one().session_id
            arguments: dict[str, tuple[Any, dict[str, Any]]] = {
                "call_quote": (("demo_user", "voice"), {"used_turn": True}),
                "start_call": (("demo_user", "lobby", "video"), {"client_key": str(uuid4())}),
                "tick_call": ((call,), {}),
                "set_call_turn": ((call,), {"used_turn": True}),
                "end_call": ((call,), {}),
                "refund_call": ((call, 1, "key of a refund"), {}),
                "explain_call": ((call,), {}),
                "top_up": (("demo_user", 5, "key of a top-up"), {}),
                "burn_calls": ((), {}),
                "settle_calls": ((5,), {}),
                "reap_stale_calls": ((timedelta(0),), {"pages_not_seen_for": timedelta(hours=1)}),
            }
            functions = {name for name in billing.__all__ if name.islower()}
            assert arguments.keys() == functions
            found: dict[str, Any] = {}
            for name, (positional, named) in arguments.items():
                rows = (await connection.execute(select(getattr(billing, name)(*positional, **named)))).all()
                found[name] = rows[0][1] if rows else None
            return found

    found = run(upgraded, driver, use)
    assert [found[name] for name in ("tick_call", "set_call_turn", "end_call", "reap_stale_calls")] == ["ok"] * 4


def test_upgrade_runs_in_run_sync_and_builds_the_same(empty: URL, upgraded: URL, driver: str) -> None:
    async def build(engine: AsyncEngine) -> None:
        for _ in range(2):
            async with engine.begin() as connection:
                await connection.run_sync(upgrade)

    run(empty, driver, build)
    assert dump(empty) == dump(upgraded)


def test_upgrade_that_the_caller_rolls_back_leaves_nothing(empty: URL, driver: str) -> None:
    async def build(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            transaction = await connection.begin()
            await connection.run_sync(lambda connection: upgrade(connection, demo=False))
            await transaction.rollback()

    before = dump(empty)
    run(empty, driver, build)
    assert dump(empty) == before


def test_upgrade_of_an_asynchronous_engine_says_what_to_do(empty: URL, driver: str) -> None:
    async def misuse(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            for target, named in ((engine, "AsyncEngine"), (connection, "AsyncConnection")):
                with pytest.raises(CommandError) as error:
                    upgrade(target)  # type: ignore[arg-type]
                assert str(error.value) == (
                    f"upgrade() got an {named}, and runs synchronously: await connection.run_sync(upgrade) in async"
                    " with engine.begin() as connection, or give a URL."
                )

    run(empty, driver, misuse)


def test_errors_have_code_and_hint(upgraded: URL, driver: str) -> None:
    async def fail(engine: AsyncEngine) -> None:
        async with engine.connect() as connection:
            with pytest.raises(DBAPIError) as error:
                await connection.execute(select(top_up("demo_user", 0, "key")))
        with pytest.raises(DBAPIError) as expected:
            execute(upgraded, "SELECT top_up('demo_user', 0, 'key')")
        said, other = (str(explain(its.value, engine.sync_engine)) for its in (error, expected))
        assert said == other
        assert error.value.orig is not None
        assert getattr(error.value.orig, "sqlstate", None) == "22023"

    run(upgraded, driver, fail)


def test_two_clients_at_once_charge_once(upgraded: URL, driver: str) -> None:
    async def use(engine: AsyncEngine) -> list[int]:
        async with engine.begin() as connection:
            call = (await connection.execute(select(start_call("demo_user", "lobby", "video")))).one().session_id

        async def send(function: Any) -> int:
            async with engine.begin() as connection:
                charged: int = (await connection.execute(select(function(call)))).one().charged
                return charged

        return await asyncio.gather(*(send(function) for function in (tick_call, end_call, tick_call, end_call)))

    assert sum(run(upgraded, driver, use)) == 2
    assert query(upgraded, "SELECT tokens_remaining FROM user_accounts WHERE user_id = 'demo_user'") == [(498,)]


def test_example_runs(tmp_path: Path, empty: URL, driver: str) -> None:
    [code] = [code for code in CODE if "asyncio.run" in code]
    url = empty.set(drivername=f"postgresql+{driver}").render_as_string(hide_password=False)
    (tmp_path / "example.py").write_text(code.replace("postgresql+asyncpg://user:password@host/database", url))
    ended = subprocess.run([sys.executable, tmp_path / "example.py"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("ok 2\n")
    assert "demo_user 498\n" in ended.stdout
