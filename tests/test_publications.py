"""Publications: with every table published, as Supabase's Realtime or another subscriber may ask, all of life goes on.

PostgreSQL refuses to update or delete rows of a published table that has no replica identity. It refuses whatever
`wal_level` is, and whether anybody subscribes.
"""

from __future__ import annotations

import shutil
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from legacy_states import STATES, State
from sqlalchemy.exc import OperationalError
from support import execute, libpq, query, run, temporary_home, wait_until

import oblivion_schema
from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

PUBLISH: Final = "CREATE PUBLICATION everything FOR ALL TABLES"

# -- What there is to publish

WITHOUT_IDENTITY: Final = """
SELECT c.oid::regclass::text
FROM pg_class AS c
WHERE c.relnamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)
  AND c.relkind IN ('r', 'p')
  AND c.relreplident <> 'f'
  AND pg_get_replica_identity_index(c.oid) IS NULL
ORDER BY 1
"""


@pytest.mark.server
def test_every_table_has_a_replica_identity(upgraded: URL) -> None:
    assert query(upgraded, WITHOUT_IDENTITY) == []
    execute(upgraded, "CREATE TABLE oblivion.keyless (note text); CREATE TABLE keyed (id integer PRIMARY KEY)")
    assert query(upgraded, WITHOUT_IDENTITY) == [("oblivion.keyless",)], "it is seen where one has none"


@pytest.mark.parametrize("table", ["usage_deltas", "call_deltas"])
@pytest.mark.server
def test_without_a_replica_identity_nothing_could_be_folded(upgraded: URL, table: str) -> None:
    """So the tests below would see it, at any `wal_level`."""
    fold = f"SELECT oblivion.fold_{'usage' if table == 'usage_deltas' else 'calls'}(10)"
    execute(upgraded, PUBLISH)
    query(upgraded, fold)
    execute(upgraded, f"ALTER TABLE oblivion.{table} REPLICA IDENTITY DEFAULT")
    assert f"setting replica identity on oblivion.{table} is missing" in run("check", url=upgraded).error
    refusal = f'cannot delete from table "{table}" because it does not have a replica identity'
    with pytest.raises(OperationalError, match=refusal):
        query(upgraded, fold)


# -- What happens to it


class Life:
    """Requests to a database, each in a transaction of its own."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self.connection = connection

    def __call__(self, sql: str, *values: object, role: str = "postgres") -> list[tuple[Any, ...]]:
        """What a statement of that role, the owner by default, returns."""
        self.connection.execute("RESET ROLE" if role == "postgres" else f"SET ROLE {role}")
        cursor = self.connection.execute(sql, values or None)
        return cursor.fetchall() if cursor.description else []

    def call(self, seconds: int, *, role: str = "anon") -> object:
        """A new call of the account `payer`, which began that long ago."""
        [(call,)] = self("SELECT session_id FROM start_call('payer', 'room', 'video')", role=role)
        self.age(call, seconds)
        return call

    def age(self, call: object, seconds: int) -> None:
        """Let so many seconds pass."""
        self(
            "UPDATE call_sessions SET start_time = start_time - make_interval(secs => %s) WHERE id = %s", seconds, call
        )

    def billed(self, function: str, *values: object, role: str = "anon") -> list[tuple[Any, ...]]:
        """Status and charge of each row that a function of the engine returns."""
        return self(f"SELECT status, charged FROM {function}", *values, role=role)


@contextmanager
def life_of(url: URL) -> Iterator[Life]:
    """A session of the owner, in autocommit."""
    with closing(psycopg.connect(libpq(url), autocommit=True)) as connection:
        yield Life(connection)


HEARTBEAT: Final = (
    "INSERT INTO user_presence (host_id, room_id, is_available) VALUES ('host', 'room', true)"
    " ON CONFLICT (host_id) DO UPDATE SET room_id = excluded.room_id, is_available = excluded.is_available"
)


def live(life: Life) -> None:
    """All that clients, a scheduler and the owner do, on a database in the open mode."""
    life("INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('payer', 1000)", role="service_role")
    for _ in range(3):
        life(HEARTBEAT, role="anon")
    calls_of_metered_pages(life)
    metered_calls(life)
    calls_of_old_pages(life)
    mending(life)
    life("DELETE FROM user_presence WHERE host_id = 'host'", role="anon")
    left = life.call(61)
    life("DELETE FROM user_accounts WHERE user_id = 'payer'", role="service_role")
    assert life.billed("tick_call(%s)", left) == [("not_billed", 0)]
    # A failure of billing reaches no caller: it would be here.
    assert life("SELECT action, attempts, resolved_at IS NULL FROM oblivion.billing_incidents") == [
        ("settle", 2, False)
    ]
    assert life("SELECT * FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0") == []
    for view in ("daily_usage_drift", "user_usage_drift", "daily_calls_drift"):
        assert life(f"SELECT * FROM oblivion.{view}") == []


def metered_calls(life: Life) -> None:
    """A call with ticks and turns; one that goes stale and comes back; one that cannot be billed until it is mended."""
    call = life.call(61)
    assert life.billed("tick_call(%s)", call) == [("ok", 4)]
    assert life.billed("set_call_turn(%s, true)", call) == [("ok", 0)]
    life.age(call, 60)
    assert life.billed("tick_call(%s)", call) == [("ok", 6)]
    assert life.billed("set_call_turn(%s, false)", call) == [("ok", 0)]
    assert life.billed("end_call(%s)", call) == [("ok", 0)]
    assert life("SELECT status, balance FROM refund_call(%s, 3, 'refund')", call, role="service_role") == [("ok", 993)]
    assert life("SELECT status, balance FROM top_up('payer', 7, 'gift')", role="service_role") == [("ok", 1000)]
    life("DELETE FROM call_sessions WHERE id = %s", call, role="anon")
    life("DELETE FROM call_sessions WHERE id = %s", life.call(61), role="anon")

    stale = life.call(600)
    life("UPDATE oblivion.call_meters SET seen_at = started_at + interval '61 s' WHERE session_id = %s", stale)
    assert life.billed("reap_stale_calls()", role="service_role") == [("ok", 4)]
    assert life.billed("tick_call(%s)", stale) == [("ok", 18)]
    assert life.billed("end_call(%s)", stale) == [("ok", 0)]

    endless = life.call(365 * 86400 * 1000)
    assert life.billed("end_call(%s)", endless) == [("unsettled", 0)]
    assert life.billed("settle_calls()", role="service_role") == [("unsettled", 0)]
    life("UPDATE call_sessions SET start_time = end_time - interval '61 s' WHERE id = %s", endless)
    assert life.billed("settle_calls()", role="service_role") == [("ok", 4)]


def calls_of_old_pages(life: Life) -> None:
    """A metered call that is ended by an UPDATE, and one that its page bills."""
    ended = life.call(61)
    life("UPDATE call_sessions SET end_time = now() WHERE id = %s", ended, role="anon")
    assert life("SELECT credit_cost FROM call_sessions WHERE id = %s", ended) == [(4,)]
    for sql in (
        "INSERT INTO call_sessions (room_id, mode, user_id) VALUES ('own', 'video', 'payer')",
        "UPDATE call_sessions SET end_time = now(), credit_cost = 2 WHERE room_id = 'own'",
        "UPDATE user_accounts SET tokens_remaining = tokens_remaining - 2 WHERE user_id = 'payer'",
        "INSERT INTO token_usage VALUES (gen_random_uuid(), 'payer', 'own', 2, now(), 'video', false)",
        "UPDATE token_usage SET tokens_used = 3 WHERE session_id = 'own'",
        "DELETE FROM token_usage WHERE session_id = 'own'",
    ):
        life(sql, role="anon")


def calls_of_metered_pages(life: Life) -> None:
    """A call that its page ends, one that it deletes, and one with a heartbeat, which it bills after all."""

    def call(seconds: int) -> object:
        [(call,)] = life(
            "INSERT INTO call_sessions (room_id, mode, user_id) VALUES ('room', 'video', 'payer') RETURNING id",
            role="anon",
        )
        # The owner's times of such a call change nothing: the server's clock counts.
        life(
            f"UPDATE oblivion.call_meters SET started_at = started_at - interval '{seconds} s' WHERE session_id = %s",
            call,
        )
        return call

    def tokens() -> int:
        [(balance,)] = life("SELECT tokens_remaining FROM user_accounts WHERE user_id = 'payer'")
        return int(balance)

    life(run("pages", "metered", "--sql").out)
    before = tokens()
    ended, deleted, billed = call(61), call(61), call(61)
    life(HEARTBEAT, role="anon")
    assert life.billed("burn_calls()", role="service_role") == [("ok", 4)], "of the user's calls in a room the last"
    life("UPDATE call_sessions SET end_time = now(), used_turn = true WHERE id = %s", ended, role="anon")
    life("UPDATE user_accounts SET tokens_remaining = 7 WHERE user_id = 'payer'", role="anon")
    usage = "INSERT INTO token_usage VALUES (gen_random_uuid(), 'payer', %s, 12, now(), 'video', true)"
    life(usage, str(ended), role="anon")
    life("DELETE FROM call_sessions WHERE id = %s", deleted, role="anon")
    assert tokens() == before - 4 - 12 - 4
    life(run("pages", "trusted", "--sql").out)
    life("UPDATE call_sessions SET end_time = now() WHERE id = %s", billed, role="anon")
    assert tokens() == before - 12 - 4, "what a page bills itself is given back"
    life(usage, str(billed), role="anon")
    life("DELETE FROM user_accounts WHERE user_id = 'payer'", role="anon")
    life("INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('payer', 1000)", role="service_role")


# Of so many days that the trigger of the statement folds the deltas, by chance of one in a thousand for each.
DAYS: Final = "generate_series(1, 1000) AS n"


def mending(life: Life) -> None:
    """What the owner does with rates, roll-ups and the ledger."""
    life("INSERT INTO token_rates VALUES ('video', true, '2030-01-01', 9)", role="service_role")
    life("UPDATE token_rates SET tokens_per_minute = 8 WHERE effective_from = '2030-01-01'", role="service_role")
    life("DELETE FROM token_rates WHERE effective_from = '2030-01-01'", role="service_role")

    life(
        "INSERT INTO call_sessions (room_id, mode, start_time)"
        f" SELECT 'past', 'video', now() - n * interval '1 d' FROM {DAYS}"
    )
    life(
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, timestamp)"
        f" SELECT 'payer', 'past', 1, 'video', false, now() - n * interval '1 d' FROM {DAYS}"
    )
    for table in ("daily_calls", "daily_usage"):
        assert life(f"SELECT count(*) >= 1000 FROM oblivion.{table}") == [(True,)], "folded"
    life("DELETE FROM call_sessions WHERE room_id = 'past'", role="anon")
    life("DELETE FROM token_usage WHERE session_id = 'past'", role="anon")
    life("SELECT oblivion.fold_usage(100000), oblivion.fold_calls(100000)")
    for table in ("daily_calls", "daily_usage"):
        assert life(f"SELECT count(*) < 5 FROM oblivion.{table}") == [(True,)], "sums of nothing are deleted"

    life("UPDATE oblivion.daily_usage SET tokens = tokens + 1")
    life("UPDATE oblivion.daily_calls SET credits = credits + 1")
    assert life("SELECT oblivion.rebuild_rollups() > 1") == [(True,)]
    assert life("SELECT oblivion.trim_ledger('infinity') > 5") == [(True,)]


COUNTED: Final = "SELECT FROM pg_stat_user_tables WHERE relname = 'user_accounts' AND n_tup_del > 0"
UNCHANGED: Final = """
SELECT concat(schemaname, '.', relname)
FROM pg_stat_user_tables
WHERE schemaname IN ('public', 'oblivion') AND n_tup_upd + n_tup_del = 0
ORDER BY 1
"""


@pytest.mark.server
def test_life_goes_on_while_every_table_is_published(upgraded: URL) -> None:
    execute(upgraded, PUBLISH)
    with life_of(upgraded) as life:
        live(life)
    wait_until(lambda: query(upgraded, COUNTED))
    # Of all other tables it has updated or deleted rows. The upgrades below write these.
    unchanged = ["adoption_log", "alembic_version", "backfills", "sign_up"]
    assert query(upgraded, UNCHANGED) == [(f"oblivion.{name}",) for name in unchanged]


@pytest.mark.parametrize("state", STATES, ids=str)
def test_upgrade_and_downgrade_go_on_while_every_table_is_published(
    new_sort: Callable[..., URL], state_by_hand: Callable[[str, State], URL], state: State
) -> None:
    url = new_sort(copy_of=state_by_hand("superuser", state))
    execute(url, PUBLISH)
    for command in (("upgrade", "head"), ("-x", "drop-data=yes", "downgrade", "003"), ("upgrade", "head"), ("check",)):
        result = run(*command, url=url)
        assert result.status == 0, result


# -- Who subscribes


@pytest.fixture
def publisher() -> Iterator[URL]:
    """An upgraded database on a server of its own, which writes to its log what a subscriber needs."""
    home = temporary_home()
    settings = "wal_level = logical\nfsync = off\nautovacuum = off\n"
    server = embedded.start(home / "server", settings=settings, at_exit="delete")
    try:
        oblivion_schema.upgrade(embedded.url(server))
        yield embedded.url(server)
    finally:
        server.cleanup()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def subscriber_of(publisher: URL) -> Iterator[URL]:
    """A copy of the database that subscribes to what happens from now on."""
    copy, elsewhere = (publisher.set(database=name) for name in ("copy", "template1"))
    query(publisher, "SELECT pg_create_logical_replication_slot('copy', 'pgoutput')")
    with closing(psycopg.connect(libpq(elsewhere), autocommit=True)) as connection:
        connection.execute(f"CREATE DATABASE copy TEMPLATE {publisher.database}")
    with closing(psycopg.connect(libpq(copy), autocommit=True)) as connection:
        connection.execute(
            f"CREATE SUBSCRIPTION copy CONNECTION '{libpq(publisher)}' PUBLICATION everything"
            " WITH (create_slot = false, copy_data = false)"
        )
        yield copy
        connection.execute("DROP SUBSCRIPTION copy")


ROWS: Final = "SELECT coalesce(json_agg(r ORDER BY r::text), '[]')::text FROM {} AS r"


@pytest.mark.full
def test_subscriber_has_the_same_rows_after_all_of_life(publisher: URL) -> None:
    execute(publisher, PUBLISH)
    with subscriber_of(publisher) as subscriber, life_of(publisher) as life:
        live(life)
        [(written,)] = life("SELECT pg_current_wal_lsn()::text")
        arrived = f"SELECT true FROM pg_stat_replication WHERE replay_lsn >= '{written}'"
        wait_until(lambda: life(arrived))
        published = life("SELECT concat(schemaname, '.', tablename) FROM pg_publication_tables")
        assert ("oblivion.usage_deltas",) in published
        for (table,) in published:
            rows = ROWS.format(table)
            assert query(subscriber, rows) == query(publisher, rows), table
