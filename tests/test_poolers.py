"""Deployers behind PgBouncer, and what those who wait for another deployer are told."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from legacy_states import STATES
from pooler import needs_pooler, pooled
from sqlalchemy import NullPool, create_engine, text
from support import execute, query, run, spawn, wait_until

from oblivion_schema.deploy.turns import ADVISORY_LOCK
from oblivion_schema.drift import check, compare

if TYPE_CHECKING:
    from sqlalchemy import URL

FULL = next(state for state in STATES if state.name == "presence fixed and safe, billing")
LOCKS = """
    SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
    WHERE locktype = 'advisory' AND datname = current_database()
"""


@needs_pooler
@pytest.mark.parametrize("settings", [{}, {"server_round_robin": "1", "min_pool_size": "3"}], ids=["lifo", "robin"])
def test_prepare_refuses_a_transaction_pooler_in_one_line_and_leaves_no_lock(
    empty: URL, settings: dict[str, str]
) -> None:
    execute(empty, FULL.script(rows=True))
    with pooled(empty, "transaction", **settings) as url:
        others = [create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() for _ in range(3)]
        for other in others:
            other.scalar(text("SELECT 1"))
        error = run("prepare", url=url).error
        assert f"127.0.0.1:{url.port}/{url.database} (-x url) is a transaction pooler" in error
        assert "connect directly, or to a pooler in session mode" in error
        assert query(empty, LOCKS) == []
        for other in others:
            other.close()
    assert run("prepare", url=empty).status == 0


@needs_pooler
def test_pooler_in_session_mode_is_as_good_as_none(empty: URL) -> None:
    execute(empty, FULL.script(rows=True))
    with pooled(empty, "session") as url:
        for command in ("prepare", "upgrade head", "check", "access open", "verify", "downgrade 003", "upgrade head"):
            result = run(*command.split(), url=url)
            assert result.status == 0, (command, result)
    assert query(empty, LOCKS) == []


@needs_pooler
def test_all_else_works_through_a_transaction_pooler(empty: URL) -> None:
    with pooled(empty, "transaction") as url:
        commands = ("inspect", "upgrade head", "check", "access authenticated", "access open", "pages", "verify")
        for command in (*commands, "burn", "reap", "settle", "downgrade 003", "upgrade head"):
            result = run(*command.split(), url=url)
            assert result.status == 0, (command, result)
        assert query(empty, LOCKS) == []


@needs_pooler
def test_calls_are_billed_through_a_transaction_pooler_by_sessions_that_share_a_few(upgraded: URL) -> None:
    users = [f"user {number}" for number in range(12)]
    execute(upgraded, f"INSERT INTO user_accounts (user_id, tokens_remaining) SELECT unnest(ARRAY{users}), 100")
    with pooled(upgraded, "transaction", default_pool_size="3") as url:

        def call(user: str) -> None:
            [(started,)] = query(url, f"SELECT session_id FROM start_call('{user}', 'room', 'video')")
            for status in ("tick_call", "tick_call", "end_call"):
                assert query(url, f"SELECT status FROM {status}('{started}')") == [("ok",)]

        with ThreadPoolExecutor(12) as threads:
            list(threads.map(call, users))
    assert query(
        upgraded, "SELECT tokens_remaining, count(*) FROM user_accounts WHERE user_id LIKE 'user %' GROUP BY 1"
    ) == [(98, 12)]
    assert run("-q", "verify", url=upgraded).out == ""


def test_pooler_is_not_seen_where_no_second_connection_is_to_be_had(new_database: object, empty: URL) -> None:
    """Then the first connection tells alone."""
    del new_database
    role = f"{empty.database}_once"
    execute(empty, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1; GRANT ALL ON SCHEMA public TO {role}")
    try:
        assert run("prepare", url=empty.set(username=role)).out == "Nothing to prepare.\n"
    finally:
        execute(empty, f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("command", ["upgrade head", "access open", "pages metered", "prepare"])
def test_who_waits_is_told_for_whom(upgraded: URL, command: str) -> None:
    options = {"application_name": "nightly deploy"}
    engine = create_engine(upgraded, poolclass=NullPool, connect_args=options, isolation_level="AUTOCOMMIT")
    with engine.connect() as other:
        pid = other.scalar(text(f"SELECT pg_backend_pid() FROM pg_advisory_lock({ADVISORY_LOCK})"))
        url = upgraded.render_as_string(hide_password=False)
        waiting = spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", *command.split())
        assert waiting.stderr is not None
        lines: list[str] = []
        while not lines or "It is process" not in lines[-1]:
            lines.append(waiting.stderr.readline())
            assert lines[-1], lines
        said = lines[-1]
        assert f"It is process {pid} (nightly deploy, role {upgraded.username}, connected since 20" in said
        assert "idle since " in said
        assert said.endswith(f" If nobody works there, end it: SELECT pg_terminate_backend({pid}).\n")
        assert waiting.poll() is None
        query(upgraded, f"SELECT pg_terminate_backend({pid})")  # as it says
        other.invalidate()
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert "It is process" not in out + err, "it is said once"


def test_one_of_our_own_deployers_is_named_as_such(upgraded: URL) -> None:
    with create_engine(upgraded, poolclass=NullPool).connect() as holder:
        holder.execute(text("LOCK TABLE call_sessions"))
        url = upgraded.render_as_string(hide_password=False)
        first = spawn("python", "-m", "alembic", "-x", f"url={url}", "-x", "lock-timeout=1min", "downgrade", "base")
        wait_until(lambda: query(upgraded, LOCKS))
        second = spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", "access", "open")
        assert second.stderr is not None
        line = second.stderr.readline()
        while "It is process" not in line:
            assert line, "it ended without a word"
            line = second.stderr.readline()
        assert "(oblivion-schema, role " in line
        assert "active since" in line
        assert "pg_terminate_backend" not in line
        for process in (second, first):
            process.kill()
            process.communicate()


@pytest.mark.server
def test_comparison_outlasts_the_roles_timeouts(upgraded: URL, empty: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    [(version,)] = query(upgraded, "SELECT current_setting('server_version_num')::integer")
    timeouts = ["idle_in_transaction_session_timeout", "statement_timeout"]
    timeouts += ["transaction_timeout"] if int(str(version)) >= 170000 else []
    role = f"{upgraded.database}_impatient"
    execute(upgraded, f"CREATE ROLE {role} LOGIN SUPERUSER")
    try:
        for name in timeouts:
            execute(upgraded, f"ALTER ROLE {role} SET {name} = '300ms'")
        waits = threading.Event()

        def slowly(*arguments: object) -> object:
            waits.wait(0.6)  # nobody can build it faster than its timeout
            return compare.find_drift(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(check, "find_drift", slowly)
        urls = [url.set(username=role).render_as_string(hide_password=False) for url in (upgraded, empty)]
        result = run("check", "--against", urls[0], "--scratch", urls[1])
        assert result.status == 0, result
    finally:
        execute(upgraded, f"DROP ROLE {role}")
