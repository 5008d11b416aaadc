"""What readers, dashboards and deployed browser clients send, and what they get back."""

from __future__ import annotations

import itertools
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
import support
from sqlalchemy import Connection, NullPool, Row, create_engine, insert, select, text
from support import API_ROLES

from oblivion_schema import (
    active_calls,
    call_sessions,
    daily_billing_summary,
    daily_token_usage,
    token_usage,
    user_accounts,
    user_token_summary,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Engine

pytestmark = pytest.mark.server


@pytest.fixture(params=["owner", *API_ROLES])
def client(shared_database: URL, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A transaction of the owner, or of one of PostgREST's roles, on each sort of database; it is rolled back."""
    if request.param == "owner":
        with create_engine(shared_database, poolclass=NullPool).connect() as connection:
            yield connection
    else:
        with support.request(shared_database, request.param) as connection:
            yield connection


def rows(client: Connection, sql: str, **values: object) -> list[Row[Any]]:
    return list(client.execute(text(sql), values))


def test_demo_account_is_read_with_its_balance(client: Connection) -> None:
    sql = "SELECT user_id, tokens_remaining, subscription_tier FROM user_accounts WHERE user_id = 'demo_user'"
    assert rows(client, sql) == [("demo_user", 500, "free")]


def test_demo_accounts_are_the_documented_ones(client: Connection) -> None:
    sql = "SELECT user_id, tokens_remaining, subscription_tier, email FROM user_accounts ORDER BY user_id"
    assert rows(client, sql) == [
        ("demo_user", 500, "free", "demo@oblivn.com"),
        ("developer", 1000, "enterprise", "dev@oblivn.com"),
        ("test_user_1", 100, "free", "test1@oblivn.com"),
        ("test_user_2", 250, "pro", "test2@oblivn.com"),
    ]


def test_rates_are_the_documented_ones(client: Connection) -> None:
    sql = "SELECT mode, used_turn, tokens_per_minute FROM token_rates ORDER BY 1, 2"
    assert rows(client, sql) == [("video", False, 2), ("video", True, 6), ("voice", False, 1), ("voice", True, 2)]


def test_call_inserted_with_room_and_mode_alone_reads_back_with_its_defaults(client: Connection) -> None:
    client.execute(text("INSERT INTO call_sessions (room_id, mode) VALUES ('test-123', 'video')"))
    [call] = rows(client, "SELECT *, now() AS now FROM call_sessions WHERE room_id = 'test-123'")
    assert (call.mode, call.used_turn, call.credit_cost, call.user_id, call.end_time) == ("video", False, 0, None, None)
    assert call.start_time == call.created_at == call.updated_at == call.now
    [active] = rows(client, "SELECT * FROM active_calls")
    assert (active.id, active.room_id, active.duration) == (call.id, "test-123", timedelta(0))


def test_call_is_started_ended_and_billed_as_browsers_do_it(client: Connection) -> None:
    clock = datetime(2026, 3, 1, 12, tzinfo=UTC)
    [(call,)] = rows(
        client,
        "INSERT INTO call_sessions (room_id, user_id, mode, used_turn, start_time, credit_cost)"
        " VALUES ('room', 'demo_user', 'voice-only', false, :clock, 0) RETURNING id",
        clock=clock,
    )
    [ended] = rows(
        client,
        "UPDATE call_sessions SET end_time = :clock, used_turn = true, credit_cost = 0.4 WHERE id = :id RETURNING *",
        clock=clock + timedelta(seconds=61),
        id=call,
    )
    assert (ended.credit_cost, ended.used_turn) == (Decimal("0.4000"), True)
    [(balance,)] = rows(client, "SELECT tokens_remaining FROM user_accounts WHERE user_id = 'demo_user'")
    client.execute(
        text("UPDATE user_accounts SET tokens_remaining = :left WHERE user_id = 'demo_user'"), {"left": balance - 4}
    )
    client.execute(
        text(
            "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)"
            " VALUES ('demo_user', :id, 4, 'voice', true, 61)"
        ),
        {"id": str(call)},
    )
    [summary] = rows(client, "SELECT * FROM user_token_summary WHERE user_id = 'demo_user'")
    assert (summary.tokens_remaining, summary.total_tokens_used, summary.total_sessions) == (496, 4, 1)
    turn = rows(client, "SELECT room_id, start_time, credit_cost FROM call_sessions WHERE used_turn = true")
    assert turn == [("room", clock, Decimal("0.4000"))]


def test_usage_of_today_is_seen_today(client: Connection) -> None:
    client.execute(text("SET LOCAL TIME ZONE 'UTC'"))
    client.execute(
        text(
            "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
            " VALUES ('demo_user', 'a', 6, 'video', true), ('demo_user', 'b', 2, 'video', true)"
        )
    )
    assert rows(client, "SELECT SUM(tokens_used) FROM token_usage WHERE DATE(timestamp) = CURRENT_DATE") == [(8,)]
    [day] = rows(client, "SELECT * FROM daily_token_usage WHERE usage_date = CURRENT_DATE")
    assert tuple(day)[1:] == ("video", True, 2, 8, 4, 0)


def test_calls_of_today_are_summed_up_today(client: Connection) -> None:
    client.execute(text("SET LOCAL TIME ZONE 'UTC'"))
    client.execute(text("INSERT INTO call_sessions (room_id, mode) VALUES ('a', 'video'), ('b', 'voice-only')"))
    [day] = rows(client, "SELECT * FROM daily_billing_summary WHERE call_date = CURRENT_DATE")
    assert tuple(day)[1:] == (2, 0, 1, 1, 0, None)


def test_presence_is_upserted_with_all_sent_columns(client: Connection) -> None:
    upsert = (
        "INSERT INTO user_presence (host_id, is_available, room_id, updated_at) VALUES ('h', :free, 'r', :clock)"
        " ON CONFLICT (host_id) DO UPDATE SET host_id = excluded.host_id, is_available = excluded.is_available,"
        " room_id = excluded.room_id, updated_at = excluded.updated_at RETURNING *"
    )
    clock = datetime(2026, 3, 1, tzinfo=UTC)
    [first] = rows(client, upsert, free=True, clock=clock)
    [second] = rows(client, upsert, free=False, clock=clock)
    assert (first.id, first.is_available, second.is_available) == (second.id, True, False)
    assert second.updated_at > clock


def test_sign_in_upsert_resets_the_balance_as_it_did(client: Connection) -> None:
    upsert = (
        "INSERT INTO user_accounts (user_id, email, tokens_remaining) VALUES ('new', 'e', 100) ON CONFLICT (user_id)"
        " DO UPDATE SET user_id = excluded.user_id, email = excluded.email, tokens_remaining = 100 RETURNING *"
    )
    assert rows(client, upsert)[0].subscription_tier == "free"
    client.execute(text("UPDATE user_accounts SET tokens_remaining = 3 WHERE user_id = 'new'"))
    assert rows(client, upsert)[0].tokens_remaining == 100


# -- Pages that are metered


@pytest.fixture(params=["anon", "authenticated"])
def page(upgraded: URL, request: pytest.FixtureRequest) -> Iterator[Connection]:
    """A transaction of a page's role on a database whose pages are metered; it is rolled back."""
    assert support.run("pages", "metered", url=upgraded).status == 0
    with support.request(upgraded, request.param, support.signed_in("demo_user")) as connection:
        yield connection


def balance(page: Connection) -> object:
    [(tokens,)] = rows(page, "SELECT tokens_remaining FROM user_accounts WHERE user_id = 'demo_user'")
    return tokens


@pytest.mark.parametrize("skew", [timedelta(0), timedelta(days=1), timedelta(days=-1)], ids=str)
def test_metered_page_gets_the_row_that_it_wrote_and_pays_by_the_servers_clock(
    page: Connection, skew: timedelta
) -> None:
    clock = datetime.now(UTC) + skew
    [(call,)] = rows(
        page,
        "INSERT INTO call_sessions (room_id, user_id, mode, used_turn, start_time, credit_cost)"
        " VALUES ('room', 'demo_user', 'voice-only', false, :clock, 0) RETURNING id",
        clock=clock,
    )
    end = clock + timedelta(seconds=7201)
    for _ in range(2):  # the second time by another tab
        [ended] = rows(
            page,
            "UPDATE call_sessions SET end_time = :end, used_turn = true, credit_cost = 24.2 WHERE id = :id RETURNING *",
            end=end,
            id=call,
        )
        assert (ended.end_time, ended.used_turn, ended.credit_cost) == (end, True, Decimal("24.2000"))
        assert (ended.id, ended.start_time, ended.user_id) == (call, clock, "demo_user")
        paid = "UPDATE user_accounts SET tokens_remaining = 258 WHERE user_id = 'demo_user'"
        assert page.execute(text(paid)).rowcount == 1
        logged = (
            "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)"
            " VALUES ('demo_user', :id, 242, 'voice', true, 7201)"
        )
        page.execute(text(logged), {"id": str(call)})
        assert balance(page) == 498
    [usage] = rows(page, "SELECT * FROM token_usage")
    assert (usage.session_id, usage.tokens_used, usage.mode, usage.used_turn) == (str(call), 2, "voice", True)
    [kept] = rows(page, "SELECT end_time - start_time AS lasted, credit_cost FROM call_sessions")
    assert timedelta(0) <= kept.lasted < timedelta(seconds=60)
    assert kept.credit_cost == 2


def test_sign_in_of_a_metered_page_resets_no_balance(page: Connection) -> None:
    upsert = (
        "INSERT INTO user_accounts (user_id, email, tokens_remaining) VALUES (:user, 'e', :tokens)"
        " ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id, email = excluded.email,"
        " tokens_remaining = excluded.tokens_remaining RETURNING email, tokens_remaining"
    )
    for tokens in (100, 5_000_000, 0):
        assert rows(page, upsert, user="demo_user", tokens=tokens) == [("e", 500)]
    for tokens, opened in ((5_000_000, 100), (100, 100), (7, 7)):
        assert rows(page, upsert, user=f"new {tokens}", tokens=tokens) == [("e", opened)]


# -- Reports


@pytest.fixture
def history(engine: Engine) -> Iterator[Connection]:
    """Two years of calls and usage, many at the edges of days, read far from UTC."""
    random = Random(4711)
    midnight = datetime(2026, 1, 1, tzinfo=UTC)

    def moment() -> datetime:
        return midnight + timedelta(days=random.randrange(-400, 400), seconds=random.choice([-1, 0, 1, 40000]))

    with engine.connect() as connection:
        connection.execute(text("SET LOCAL TIME ZONE 'Pacific/Kiritimati'"))  # 14 hours ahead
        starts = [moment() for _ in range(300)]
        connection.execute(
            insert(call_sessions),
            [
                {
                    "room_id": "r",
                    "start_time": start,
                    "end_time": random.choice([None, start + timedelta(seconds=random.randrange(-60, 9000))]),
                    "mode": random.choice(["video", "voice-only"]),
                    "used_turn": random.random() < 0.5,
                    "credit_cost": Decimal(random.randrange(1000)) / 10,
                }
                for start in starts
            ],
        )
        connection.execute(
            insert(token_usage),
            [
                {
                    "user_id": random.choice(["demo_user", "developer"]),
                    "session_id": str(number),
                    "tokens_used": random.randrange(100),
                    "timestamp": moment(),
                    "mode": random.choice(["video", "voice"]),
                    "used_turn": random.random() < 0.5,
                    "duration_seconds": random.choice([None, random.randrange(9000)]),
                }
                for number in range(300)
            ],
        )
        yield connection


def test_daily_billing_summary_sums_each_utc_day_newest_first(history: Connection) -> None:
    def day(call: Row[*tuple[Any, ...]]) -> date:
        start: datetime = call.start_time
        return start.astimezone(UTC).date()

    calls = sorted(history.execute(select(call_sessions)), key=day, reverse=True)
    expected = []
    for when, group in itertools.groupby(calls, key=day):
        its = list(group)
        minutes = [Decimal((c.end_time - c.start_time).total_seconds()) / 60 for c in its if c.end_time]
        video = sum(c.mode == "video" for c in its)
        costs = sum(c.credit_cost for c in its)
        mean = sum(minutes) / len(minutes) if minutes else None
        expected.append((when, len(its), sum(c.used_turn for c in its), video, len(its) - video, costs, mean))
    found = [tuple(row) for row in history.execute(select(daily_billing_summary))]
    assert [row[:-1] for row in found] == [row[:-1] for row in expected]
    assert [row[-1] for row in found] == pytest.approx([row[-1] for row in expected])
    assert len(found) > 200


def test_daily_token_usage_sums_each_utc_day_mode_and_turn_newest_first(history: Connection) -> None:
    def group(usage: Row[*tuple[Any, ...]]) -> tuple[object, ...]:
        return (-usage.timestamp.astimezone(UTC).date().toordinal(), usage.mode, usage.used_turn)

    usage = sorted(history.execute(select(token_usage)), key=group)
    expected = []
    for (ordinal, mode, turn), grouped in itertools.groupby(usage, key=group):
        its = list(grouped)
        tokens = sum(u.tokens_used for u in its)
        minutes = Decimal(sum(u.duration_seconds or 0 for u in its)) / 60
        expected.append((ordinal, mode, turn, len(its), tokens, Decimal(tokens) / len(its), minutes))
    found = [(-row[0].toordinal(), *row[1:]) for row in history.execute(select(daily_token_usage))]
    assert [row[:5] for row in found] == [row[:5] for row in expected]
    for column in (5, 6):
        assert [row[column] for row in found] == pytest.approx([row[column] for row in expected])


def test_user_token_summary_has_a_row_for_each_account_with_zeroes_where_nothing_was_used(history: Connection) -> None:
    usage = list(history.execute(select(token_usage)))
    found = {row.user_id: row for row in history.execute(select(user_token_summary))}
    assert set(found) == set(history.scalars(select(user_accounts.c.user_id)))
    for user, summary in found.items():
        its = [u for u in usage if u.user_id == user]
        assert summary.total_tokens_used == sum(u.tokens_used for u in its)
        assert summary.total_sessions == len(its)
        assert summary.last_usage == max((u.timestamp for u in its), default=None)


def test_active_calls_are_those_without_an_end_newest_first(history: Connection) -> None:
    calls = history.execute(select(call_sessions).where(call_sessions.c.end_time.is_(None)))
    expected = sorted((c.start_time for c in calls), reverse=True)
    found = list(history.execute(select(active_calls)))
    assert [c.start_time for c in found] == expected
    now = history.scalar(text("SELECT now()"))
    assert all(c.duration == now - c.start_time for c in found)
