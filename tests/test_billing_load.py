"""The books stay right whatever clients do at once, whoever loses a connection, and when the server dies."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import UUID

import psycopg
import pytest
from billing_load import BALANCES, PREPARATION, Load, restarted_after_a_kill
from books import check
from support import execute, libpq, query, temporary_home

import oblivion_schema
from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from sqlalchemy import URL


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.few(seed=0)
@pytest.mark.server
def test_whatever_clients_do_at_once_the_books_are_right(upgraded: URL, seed: int) -> None:
    load = Load(upgraded, seed)
    load.prepare()
    load.run(8, lambda: load.wait_for(2000))
    assert load.finish() == []
    assert min(load.suffered[event] for event in ("session killed", "statement retried", "reply dropped")) > 0


@pytest.mark.full
@pytest.mark.user
def test_server_killed_under_load_keeps_all_that_was_acknowledged() -> None:
    home = temporary_home()
    server = embedded.start(home / "server", settings="fsync = on\nsynchronous_commit = on\n")
    url = embedded.url(server)
    oblivion_schema.upgrade(url)
    load = Load(url, seed=1)
    load.prepare()
    try:
        for _ in range(2):
            load.run(
                6,
                lambda: load.wait_for(400),
                lambda: restarted_after_a_kill(home / "server"),
                lambda: load.wait_for(200),
            )
            assert load.ends
            assert any(credit.status == "ok" for credit in load.credits.values())
            assert load.finish() == []
    finally:
        embedded.stop(home / "server")
        shutil.rmtree(home, ignore_errors=True)


def prepared_calls(url: URL) -> None:
    """Calls of several accounts, in no order."""
    execute(url, PREPARATION)
    for user in BALANCES:
        execute(url, f"INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('{user}', 1000)")
    for number in range(30):
        started(url, [*BALANCES][number * 7 % 5 % len(BALANCES)], 90)


def at_once(url: URL, *statements: str, refusal: str | None = None) -> list[tuple[object, ...]]:
    """The row of each statement, sent in the same moment on connections of their own; some may be refused."""
    barrier = threading.Barrier(len(statements))

    def ask(sql: str) -> tuple[object, ...]:
        with psycopg.connect(libpq(url), autocommit=True) as connection:
            barrier.wait()
            try:
                row = connection.execute(sql).fetchone()
            except psycopg.errors.InvalidParameterValue as error:
                assert error.diag.message_primary == refusal  # noqa: PT017 - it may also be answered
                return ("refused",)
            assert row is not None
            return tuple(row)

    with ThreadPoolExecutor(len(statements)) as pool:
        return list(pool.map(ask, statements))


def started(url: URL, user: str, seconds: int, *, turn: bool = False) -> UUID:
    """A call of that length."""
    ((session,),) = query(url, f"SELECT session_id FROM start_call('{user}', 'room', 'video', {turn})")
    assert isinstance(session, UUID)
    execute(
        url,
        f"UPDATE call_sessions SET start_time = start_time - interval '{seconds} seconds' WHERE id = '{session}'",
    )
    return session


@pytest.mark.parametrize("user", ["developer", "test_user_1"])
def test_ten_clients_that_end_a_call_bill_it_once(upgraded: URL, user: str) -> None:
    session = started(upgraded, user, 3600)
    rows = at_once(upgraded, *[f"SELECT status, charged, shortfall FROM end_call('{session}')"] * 10)
    first = ("ok", 122, 0) if user == "developer" else ("short", 100, 22)
    assert sorted(rows) == sorted([first, *[("ended", 0, 0)] * 9])
    check(upgraded)


def test_ticks_from_two_tabs_bill_each_minute_once(upgraded: URL) -> None:
    session = started(upgraded, "developer", 0)
    charged = 0
    for _ in range(20):
        execute(
            upgraded,
            f"UPDATE call_sessions SET start_time = start_time - interval '30 seconds' WHERE id = '{session}'",
        )
        rows = at_once(upgraded, *[f"SELECT charged FROM tick_call('{session}')"] * 2)
        charged += sum(int(str(row[0])) for row in rows)
    assert charged == 22
    assert query(upgraded, f"SELECT charged, credit_cost FROM end_call('{session}')") == [(0, 22)]
    check(upgraded)


def test_credit_that_is_retried_at_once_is_made_once(upgraded: URL) -> None:
    session = started(upgraded, "developer", 90)
    assert query(upgraded, f"SELECT charged FROM end_call('{session}')") == [(4,)]
    for credit in ("top_up('developer', 3, 'a')", f"refund_call('{session}', 3, 'b')"):
        rows = at_once(upgraded, *[f"SELECT status FROM {credit}"] * 10)
        assert sorted(rows) == [*[("known",)] * 9, ("ok",)]
    check(upgraded)


def test_refunds_at_once_give_back_no_more_than_was_charged(upgraded: URL) -> None:
    session = started(upgraded, "developer", 90)
    assert query(upgraded, f"SELECT charged FROM end_call('{session}')") == [(4,)]
    statements = [f"SELECT status FROM refund_call('{session}', 3, '{number}')" for number in range(10)]
    rows = at_once(upgraded, *statements, refusal="A refund of 3 tokens, where 1 are left of what was charged")
    assert sorted(rows) == [("ok",), *[("refused",)] * 9]
    check(upgraded)


def test_reapers_at_once_take_each_call_once(upgraded: URL) -> None:
    prepared_calls(upgraded)
    rows = at_once(upgraded, *["SELECT count(*) FROM reap_stale_calls('0', 10) WHERE status = 'ok'"] * 4)
    taken = sum(int(str(row[0])) for row in rows)
    (rest,) = at_once(upgraded, "SELECT count(*) FROM reap_stale_calls('0') WHERE status = 'ok'")
    assert taken + int(str(rest[0])) == 30
    assert query(upgraded, "SELECT * FROM oblivion.billing_incidents") == []
    check(upgraded)


def test_settlers_at_once_bill_each_call_once(upgraded: URL) -> None:
    prepared_calls(upgraded)
    execute(upgraded, "SET load.failing = 'token_ledger'; SELECT end_call(id) FROM call_sessions")
    assert query(upgraded, "SELECT count(*) FROM oblivion.call_meters WHERE NOT settled") == [(30,)]
    rows = at_once(upgraded, *["SELECT count(*) FROM settle_calls(10) WHERE status = 'ok'"] * 4)
    taken = sum(int(str(row[0])) for row in rows)
    (rest,) = at_once(upgraded, "SELECT count(*) FROM settle_calls() WHERE status = 'ok'")
    assert taken + int(str(rest[0])) == 30
    check(upgraded)
