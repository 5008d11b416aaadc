"""What mends a database whose triggers were bypassed, and what leaves it alone until then."""

from __future__ import annotations

import random
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError
from support import execute, libpq, query, request, run, signed_in, wait_until

from oblivion_schema import metadata
from oblivion_schema.errors import sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Engine

pytestmark = pytest.mark.server

WRONG: Final = "SELECT user_id, drift, gaps FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0 ORDER BY 1"
BALANCES: Final = "SELECT user_id, tokens_remaining FROM user_accounts ORDER BY 1"
LEDGER: Final = "SELECT * FROM token_ledger ORDER BY user_id, id"
CORRECTIONS: Final = "SELECT user_id, tokens, balance FROM token_ledger WHERE kind = 'correction' ORDER BY 1, id"
REBUILD: Final = "SELECT oblivion.rebuild_ledger()"


def past_the_triggers(sql: str) -> str:
    return f"SET LOCAL session_replication_role = replica; {sql}; SET LOCAL session_replication_role = origin"


def started(url: URL) -> None:
    """Two accounts with a history, and nothing wrong."""
    execute(
        url,
        """
        DELETE FROM user_accounts;
        DELETE FROM token_ledger;
        INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('ada', 100), ('bob', 100);
        SELECT top_up('ada', 1, 'ada1'), top_up('bob', 2, 'bob2'), top_up('ada', 3, 'ada3'), top_up('ada', 4, 'ada4'),
          top_up('bob', 5, 'bob5')
        """,
    )


# What went wrong, with the account's drift, and the tokens of the corrections.
DAMAGE: Final = {
    "more": ("UPDATE user_accounts SET tokens_remaining = 900 WHERE user_id = 'ada'", 792, [792]),
    "less": ("UPDATE user_accounts SET tokens_remaining = 0 WHERE user_id = 'ada'", -108, [-108]),
    "the trigger disabled": (
        (
            "ALTER TABLE user_accounts DISABLE TRIGGER USER;"
            " UPDATE user_accounts SET tokens_remaining = 900 WHERE user_id = 'ada';"
            " ALTER TABLE user_accounts ENABLE TRIGGER USER"
        ),
        792,
        [792],
    ),
    "first row lost": ("DELETE FROM token_ledger WHERE user_id = 'ada' AND kind = 'opening'", 100, [100]),
    "a row lost": ("DELETE FROM token_ledger WHERE key = 'ada3'", 3, [3]),
    "last row lost": ("DELETE FROM token_ledger WHERE key = 'ada4'", 4, [4]),
    "all rows lost": ("DELETE FROM token_ledger WHERE user_id = 'ada'", 108, [108]),
    "rows doubled": (
        (
            "INSERT INTO token_ledger (user_id, kind, tokens, balance)"
            " SELECT user_id, kind, tokens, balance FROM token_ledger WHERE user_id = 'ada' ORDER BY id"
        ),
        -108,
        [-108],
    ),
    "rows in another order": (
        (
            "WITH moved AS (DELETE FROM token_ledger WHERE user_id = 'ada' AND kind = 'top_up' RETURNING *)"
            " INSERT INTO token_ledger (user_id, id, kind, tokens, balance) OVERRIDING SYSTEM VALUE"
            " SELECT user_id, -id, kind, tokens, balance FROM moved"
        ),
        0,
        [0],
    ),
    "gone": ("DELETE FROM user_accounts WHERE user_id = 'ada'", -108, [-108]),
    "gone and reopened": (
        (
            "DELETE FROM user_accounts WHERE user_id = 'ada';"
            " SET LOCAL session_replication_role = origin;"
            " INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('ada', 7)"
        ),
        -108,
        [-108],
    ),
    "beyond an integer": (
        "UPDATE token_ledger SET tokens = 2147483647, balance = 2147483647 WHERE user_id = 'ada'",
        108 - 4 * 2147483647,
        [-2147483647] * 3 + [108 - 2147483647],
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.few(damage=("more", "a row lost", "gone"))
def test_rebuild_brings_the_ledger_to_the_balance(upgraded: URL, damage: str) -> None:
    sql, drift, tokens = DAMAGE[damage]
    started(upgraded)
    execute(upgraded, past_the_triggers(sql))
    [(user, off, gaps)] = query(upgraded, WRONG)
    assert (user, off) == ("ada", drift)
    assert gaps or damage in {"more", "less", "the trigger disabled", "last row lost", "all rows lost", "gone"}
    balances, rows = query(upgraded, BALANCES), query(upgraded, LEDGER)

    assert query(upgraded, REBUILD) == [(1,)]
    assert query(upgraded, WRONG) == []
    assert query(upgraded, BALANCES) == balances
    balance = next((tokens for user, tokens in balances if user == "ada"), 0)
    assert query(upgraded, CORRECTIONS) == [("ada", number, balance) for number in tokens]
    assert [row for row in query(upgraded, LEDGER) if row[3] != "correction"] == rows, "they are answers of before"

    corrected = query(upgraded, LEDGER)
    assert query(upgraded, REBUILD) == [(0,)]
    assert query(upgraded, LEDGER) == corrected
    # Life goes on.
    execute(
        upgraded,
        "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('ada', 5) ON CONFLICT DO NOTHING;"
        " SELECT top_up(user_id, 10, 'later') FROM user_accounts",
    )
    assert query(upgraded, WRONG) == []
    assert query(upgraded, "SELECT oblivion.trim_ledger('infinity') > 0") == [(True,)]
    assert query(upgraded, WRONG) == []
    execute(upgraded, past_the_triggers("DELETE FROM token_ledger WHERE user_id = 'ada'"))
    assert query(upgraded, REBUILD) == [(1,)], "what goes wrong after that is seen"


def test_rebuild_leaves_a_sound_ledger_alone(upgraded: URL) -> None:
    started(upgraded)
    rows = query(upgraded, LEDGER)
    assert query(upgraded, REBUILD) == [(0,)]
    assert query(upgraded, LEDGER) == rows


def test_a_row_lost_after_a_correction_is_a_gap_again(upgraded: URL) -> None:
    started(upgraded)
    execute(upgraded, past_the_triggers("DELETE FROM token_ledger WHERE key = 'ada3'"))
    execute(upgraded, f"{REBUILD}; SELECT top_up('ada', n, 'then' || n) FROM generate_series(1, 3) AS n")
    execute(upgraded, past_the_triggers("DELETE FROM token_ledger WHERE key = 'then2'"))
    assert query(upgraded, WRONG) == [("ada", 2, 3)], "all of its gaps, as there is one after the correction"
    assert query(upgraded, REBUILD) == [(1,)]
    assert query(upgraded, WRONG) == []


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_rebuild_is_refused_where_it_could_not_see_others(upgraded: URL, level: str) -> None:
    with pytest.raises(DBAPIError, match="has to see what others have written") as refused:
        execute(upgraded, f"SET TRANSACTION ISOLATION LEVEL {level}; {REBUILD}")
    assert sqlstate(refused.value) == "25001"


# -- Random histories, random damage

DAMAGES: Final = (
    "UPDATE user_accounts SET tokens_remaining = {n} WHERE user_id = '{user}'",
    "DELETE FROM user_accounts WHERE user_id = '{user}'",
    "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('{user}', {n}) ON CONFLICT DO NOTHING",
    "DELETE FROM token_ledger WHERE user_id = '{user}' AND id % 3 = {n} % 3",
    (
        "INSERT INTO token_ledger (user_id, kind, tokens, balance)"
        " SELECT user_id, kind, tokens, balance FROM token_ledger WHERE user_id = '{user}' AND id % 2 = {n} % 2"
    ),
)
DEEDS: Final = (
    "SELECT top_up(user_id, {n} + 1, gen_random_uuid()::text) FROM user_accounts WHERE user_id = '{user}'",
    "UPDATE user_accounts SET tokens_remaining = {n} WHERE user_id = '{user}'",
    "DELETE FROM user_accounts WHERE user_id = '{user}'",
    "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('{user}', {n}) ON CONFLICT DO NOTHING",
    "SELECT oblivion.trim_ledger(clock_timestamp())",
    "SELECT oblivion.trim_ledger((SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY created_at) FROM token_ledger))",
    "SELECT oblivion.fold_charges('infinity')",
    "SELECT end_call((SELECT session_id FROM start_call('{user}', 'room', 'video')))",
    (
        "UPDATE call_sessions SET start_time = start_time - interval '61 seconds' WHERE end_time IS NULL;"
        " SELECT tick_call(id) FROM call_sessions WHERE end_time IS NULL"
    ),
    "SELECT start_call('{user}', 'room', 'video')",
)


def drifts(connection: Any) -> dict[str, tuple[int, int]]:
    return {user: (drift, gaps) for user, drift, gaps in connection.exec_driver_sql(WRONG)}


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.few(seed=range(5))
def test_whatever_went_wrong_is_mended_and_nothing_else_ends_it(shared_engine: Engine, seed: int) -> None:
    chance = random.Random(seed)
    with shared_engine.connect() as connection:

        def do(sql: str) -> None:
            connection.exec_driver_sql(sql, execution_options={"no_parameters": True})

        for user in ("ada", "bob"):
            do(f"INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('{user}', 100)")
        for _ in range(60):
            before = drifts(connection)
            kind = chance.choice(["damage", "rebuild", *["deed"] * 8])
            if kind == "rebuild":
                balances = connection.exec_driver_sql(BALANCES).all()
                assert connection.exec_driver_sql(REBUILD).scalar() == len(before)
                assert drifts(connection) == {}
                assert connection.exec_driver_sql(BALANCES).all() == balances
                continue
            sql = chance.choice(DAMAGES if kind == "damage" else DEEDS)
            sql = sql.format(user=chance.choice(["ada", "bob"]), n=chance.randint(0, 99))
            do(past_the_triggers(sql) if kind == "damage" else sql)
            if kind == "deed":
                after = drifts(connection)
                assert {u: off for u, (off, _) in after.items() if off} == {
                    u: off for u, (off, _) in before.items() if off
                }
                assert {u for u in before if u in after} == {*before}, "it stays named"
        connection.rollback()


# -- While writers go on


@contextmanager
def session(url: URL) -> Iterator[psycopg.Connection[Any]]:
    with closing(psycopg.connect(libpq(url), autocommit=True)) as connection:
        yield connection


@contextmanager
def waiting(url: URL, sql: str) -> Iterator[Future[Any]]:
    """A statement of another session that waits for a lock."""

    def ask() -> Any:
        with session(url) as connection:
            return connection.execute(sql).fetchall()

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(ask)
        wait_until(
            lambda: (
                future.done()
                or query(
                    url, "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
                )
            )
        )
        assert not future.done(), future.result()
        yield future


def test_rebuild_waits_for_who_writes_the_account(upgraded: URL) -> None:
    started(upgraded)
    execute(upgraded, past_the_triggers("UPDATE user_accounts SET tokens_remaining = 900 WHERE user_id = 'ada'"))
    with session(upgraded) as writer:
        writer.execute("BEGIN; SELECT top_up('ada', 5, 'meanwhile')")
        with waiting(upgraded, REBUILD) as rebuilt:
            execute(upgraded, "SELECT top_up('bob', 5, 'meanwhile')")  # others go on
            writer.execute("COMMIT")
            assert rebuilt.result() == [(1,)]
    assert query(upgraded, WRONG) == []
    assert query(upgraded, CORRECTIONS) == [("ada", 792, 905)]


def test_rebuild_waits_for_who_opens_the_account_again(upgraded: URL) -> None:
    started(upgraded)
    execute(upgraded, past_the_triggers("DELETE FROM user_accounts WHERE user_id = 'ada'"))
    with session(upgraded) as writer:
        writer.execute("BEGIN; INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('ada', 7)")
        with waiting(upgraded, REBUILD) as rebuilt:
            execute(upgraded, "SELECT top_up('bob', 5, 'meanwhile')")
            writer.execute("COMMIT")
            assert rebuilt.result() == [(1,)]
    execute(upgraded, "SELECT top_up('ada', 5, 'later')")
    assert query(upgraded, WRONG) == []
    assert query(upgraded, CORRECTIONS) == [("ada", -108, 7)]


def test_who_opens_an_account_that_is_gone_waits_for_a_rebuild(upgraded: URL) -> None:
    started(upgraded)
    execute(upgraded, past_the_triggers("DELETE FROM user_accounts WHERE user_id = 'ada'"))
    opening = "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('ada', 7) RETURNING 1"
    with session(upgraded) as owner:
        owner.execute(f"BEGIN; {REBUILD}")
        with waiting(upgraded, opening) as opened:
            owner.execute("COMMIT")
            opened.result()
    execute(upgraded, "SELECT top_up('ada', 5, 'later')")
    assert query(upgraded, WRONG) == []


@pytest.mark.parametrize("second", [REBUILD, "SELECT oblivion.trim_ledger('infinity')"])
def test_a_second_one_waits_and_corrects_nothing_twice(upgraded: URL, second: str) -> None:
    started(upgraded)
    execute(upgraded, past_the_triggers("UPDATE user_accounts SET tokens_remaining = 900 WHERE user_id = 'ada'"))
    with session(upgraded) as owner:
        owner.execute(f"BEGIN; {REBUILD}")
        with waiting(upgraded, second) as other:
            owner.execute("COMMIT")
            assert other.result() == ([(0,)] if second == REBUILD else [(6,)])
    assert query(upgraded, WRONG) == []


def test_rebuilds_beside_writers_and_damage_end_right(upgraded: URL) -> None:
    """Each writer does one thing a time; sessions that bypass the triggers come in between."""
    started(upgraded)
    over = threading.Event()
    wrong: list[str] = []

    def work(number: int) -> None:
        chance = random.Random(number)
        with session(upgraded) as connection:
            while not over.is_set():
                user, n = chance.choice(["ada", "bob", "cyd"]), chance.randint(0, 99)
                sql = chance.choice(DEEDS[:4]).format(user=user, n=n)
                if number == 0:
                    sql = f"BEGIN; {past_the_triggers(chance.choice(DAMAGES[:4]).format(user=user, n=n))}; COMMIT"
                    over.wait(0.01)
                try:
                    connection.execute(sql)
                except psycopg.errors.ForeignKeyViolation:
                    pass  # the account that it read is gone
                except psycopg.Error as error:
                    wrong.append(f"{sql}: {error}")

    with ThreadPoolExecutor(4) as pool:
        workers = [pool.submit(work, number) for number in range(4)]
        rebuilt = [query(upgraded, REBUILD)[0][0] for _ in range(60)]
        over.set()
        for worker in workers:
            worker.result()
    query(upgraded, REBUILD)
    assert query(upgraded, WRONG) == []
    assert any(rebuilt)
    assert wrong == []


# -- What leaves a wrong ledger alone


@pytest.mark.parametrize("function", ["trim_ledger", "fold_charges"])
def test_retention_leaves_wrong_ledgers_alone_and_says_so(upgraded: URL, function: str) -> None:
    started(upgraded)
    for user in ("ada", "bob"):
        execute(
            upgraded,
            f"""
            SELECT start_call('{user}', 'room', 'video');
            UPDATE call_sessions SET start_time = start_time - interval '61 seconds' WHERE end_time IS NULL;
            SELECT tick_call(id) FROM call_sessions WHERE end_time IS NULL;
            UPDATE call_sessions SET start_time = start_time - interval '61 seconds' WHERE end_time IS NULL;
            SELECT end_call(id) FROM call_sessions WHERE end_time IS NULL;
            """,
        )
    execute(upgraded, past_the_triggers("DELETE FROM token_ledger WHERE key = 'ada3'"))
    adas, bobs = (f"SELECT * FROM token_ledger WHERE user_id = '{user}' ORDER BY id" for user in ("ada", "bob"))
    rows, wrong = query(upgraded, adas), query(upgraded, WRONG)
    told: list[tuple[str | None, str | None, str | None]] = []
    with session(upgraded) as owner:
        owner.add_notice_handler(lambda d: told.append((d.severity, d.message_primary, d.message_hint)))
        owner.execute(f"SELECT oblivion.{function}('infinity')")
        assert told == [
            (
                "WARNING",
                "The ledgers of 1 accounts are wrong, and left alone: ada",
                "Run SELECT oblivion.rebuild_ledger(), and repeat it; oblivion.balance_audit has all of them",
            )
        ]
        assert query(upgraded, adas) == rows
        assert query(upgraded, WRONG) == wrong
        assert len(query(upgraded, bobs)) == (1 if function == "trim_ledger" else 4), "all others are done"
        owner.execute(REBUILD)
        told.clear()
        owner.execute(f"SELECT oblivion.{function}('infinity')")
        assert told == []
    assert len(query(upgraded, adas)) == (1 if function == "trim_ledger" else len(rows)), "one charge for two"
    assert query(upgraded, WRONG) == []


def test_trim_waits_for_a_correction_to_grow_old(upgraded: URL) -> None:
    """The rows before it do not add up to what they say."""
    started(upgraded)
    execute(upgraded, past_the_triggers("DELETE FROM token_ledger WHERE key = 'ada3'"))
    [(moment,)] = query(upgraded, "SELECT clock_timestamp()")
    execute(upgraded, REBUILD)
    assert query(upgraded, f"SELECT oblivion.trim_ledger('{moment}')") == [(2,)], "of bob alone"
    assert query(upgraded, WRONG) == []
    assert query(upgraded, "SELECT oblivion.trim_ledger('infinity')") == [(3,)]
    assert query(upgraded, WRONG) == []


# -- Folding in other isolation levels

LEVELS: Final = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
DELTAS: Final = "SELECT (SELECT count(*) FROM oblivion.usage_deltas), (SELECT count(*) FROM oblivion.call_deltas)"
FOLD: Final = "SELECT oblivion.fold_usage(100000), oblivion.fold_calls(100000)"


def used(rows: int) -> str:
    """What appends deltas of `rows` days: enough of them make the trigger fold."""
    return (
        "INSERT INTO call_sessions (room_id, mode, start_time)"
        f" SELECT 'r', 'video', now() - n * interval '1 d' FROM generate_series(1, {rows}) AS n;"
        " INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, timestamp)"
        " SELECT 'demo_user', 'c', 1, 'video', false, now() - n * interval '1 d'"
        f" FROM generate_series(1, {rows}) AS n"
    )


@pytest.mark.parametrize("level", LEVELS)
def test_fold_folds_in_every_isolation_level(upgraded: URL, level: str) -> None:
    with session(upgraded) as writer:
        writer.execute(f"BEGIN ISOLATION LEVEL {level}; {used(1)}; COMMIT")
        assert query(upgraded, DELTAS) == [(1, 1)]
        told: list[str | None] = []
        writer.add_notice_handler(lambda d: told.append(d.message_primary))
        writer.execute(f"BEGIN ISOLATION LEVEL {level}; {FOLD}; COMMIT")
        assert query(upgraded, DELTAS) == [(0, 0)]
        assert told == []
    assert "FAIL" not in run("verify", url=upgraded).out


def test_fold_that_has_to_wait_says_that_it_did_not(upgraded: URL) -> None:
    with session(upgraded) as first, session(upgraded) as second:
        first.execute(f"BEGIN; {FOLD}")
        second.execute(used(1500))  # a trigger says nothing
        told: list[tuple[str | None, str | None]] = []
        second.add_notice_handler(lambda d: told.append((d.message_primary, d.message_hint)))
        second.execute(used(1500))
        assert told == []
        second.execute(FOLD)
        assert told == [
            (f"Another transaction is folding oblivion.{table}: nothing was folded now", "Repeat it")
            for table in ("usage_deltas", "call_deltas")
        ]
        first.execute("COMMIT")
        second.execute(FOLD)
    assert query(upgraded, DELTAS) == [(0, 0)]
    assert "FAIL" not in run("verify", url=upgraded).out


@pytest.mark.parametrize("level", LEVELS[1:])
def test_writers_of_other_levels_do_not_fold_and_never_fail_for_it(upgraded: URL, level: str) -> None:
    with session(upgraded) as writer:
        writer.execute(f"BEGIN ISOLATION LEVEL {level}; SELECT 1")
        execute(upgraded, f"{used(1)}; {FOLD}")  # folded after the writer's snapshot
        execute(upgraded, used(1))
        writer.execute(f"{used(1500)}; COMMIT")
    assert query(upgraded, "SELECT count(*) > 1000 FROM oblivion.call_deltas") == [(True,)]
    with session(upgraded) as owner:
        owner.execute(f"BEGIN ISOLATION LEVEL {level}; SELECT count(*) FROM oblivion.usage_deltas")
        execute(upgraded, FOLD)
        with pytest.raises(psycopg.errors.SerializationFailure):
            owner.execute(FOLD)
    assert "FAIL" not in run("verify", url=upgraded).out


# -- Identities

IDENTITIES: Final = sorted(
    table.fullname
    for table in metadata.tables.values()
    if not table.is_view and any(column.identity for column in table.columns)
)
AT: Final = " UNION ALL ".join(
    f"SELECT '{table}', (SELECT max(id) FROM {table}), (SELECT last_value FROM {table}_id_seq)" for table in IDENTITIES
)


def test_identities_go_on_after_the_newest_row(upgraded: URL) -> None:
    assert len(IDENTITIES) == 3
    for table in IDENTITIES:
        columns = {
            "token_ledger": "user_id, kind, tokens, balance) OVERRIDING SYSTEM VALUE VALUES (1000, 'x', 'direct', 0, 0",
            "oblivion.billing_incidents": "session_id, action, error_code, message) OVERRIDING SYSTEM VALUE"
            " VALUES (1000, gen_random_uuid(), 'tick', '', ''",
            "oblivion.adoption_log": "kind, name, why) OVERRIDING SYSTEM VALUE VALUES (1000, 'table', 'x', ''",
        }[table]
        execute(upgraded, f"INSERT INTO {table} (id, {columns})")
    assert query(upgraded, "SELECT oblivion.restart_identities()") == [(3,)]
    assert sorted(query(upgraded, AT)) == [(table, 1000, 1000) for table in IDENTITIES]
    assert query(upgraded, "SELECT oblivion.restart_identities()") == [(0,)]
    execute(upgraded, "SELECT top_up('demo_user', 1, 'next')")
    assert query(upgraded, "SELECT id FROM token_ledger WHERE key = 'next'") == [(1001,)]
    execute(upgraded, "DELETE FROM token_ledger; SELECT oblivion.restart_identities()")
    assert query(upgraded, "SELECT last_value FROM token_ledger_id_seq") == [(1001,)], "it is never set back"


def test_identity_is_not_set_back_behind_who_writes_meanwhile(upgraded: URL) -> None:
    """The sequence passes the newest row while the function waits for the writer."""
    started(upgraded)
    query(upgraded, "SELECT setval('token_ledger_id_seq', max(id) - 2) FROM token_ledger")
    with session(upgraded) as writer:
        writer.execute("BEGIN; INSERT INTO user_accounts (user_id) VALUES ('cyd')")
        with waiting(upgraded, "SELECT oblivion.restart_identities()") as restarted:
            writer.execute("INSERT INTO user_accounts (user_id) VALUES ('dan'), ('eve'), ('fay'); COMMIT")
            assert restarted.result() == [(0,)]
    goes_on = "SELECT last_value = (SELECT max(id) FROM token_ledger) FROM token_ledger_id_seq"
    assert query(upgraded, goes_on) == [(True,)]


# -- Small things


def test_call_that_ends_before_it_starts_has_no_length(upgraded: URL) -> None:
    execute(
        upgraded,
        "INSERT INTO call_sessions (room_id, mode, start_time, end_time)"
        " VALUES ('r', 'video', '2026-01-01 10:00', '2026-01-01 09:00'),"
        " ('r', 'video', '2026-01-01 10:00', '2026-01-01 10:04')",
    )
    length = "SELECT avg_duration_minutes FROM daily_billing_summary WHERE call_date = '2026-01-01'"
    assert query(upgraded, length) == [(2,)]
    execute(upgraded, FOLD)
    assert query(upgraded, length) == [(2,)]
    execute(
        upgraded, "UPDATE call_sessions SET end_time = start_time - interval '1 day' WHERE start_time < '2026-02-01'"
    )
    assert query(upgraded, length) == [(0,)]
    assert query(upgraded, "SELECT * FROM oblivion.daily_calls_drift") == []


@pytest.mark.parametrize("room", ["''", "NULL"])
def test_call_needs_a_room(upgraded: URL, room: str) -> None:
    with pytest.raises(DBAPIError, match="A call needs a room") as refused:
        query(upgraded, f"SELECT start_call('demo_user', {room}, 'video')")
    assert sqlstate(refused.value) == "22023"


def test_cost_of_a_call_has_one_form(upgraded: URL) -> None:
    """The form of call_sessions.credit_cost, as text too, as a page gets it."""

    def cost(function: str) -> object:
        [(text,)] = query(upgraded, f"SELECT credit_cost::text FROM {function}")
        return text

    [(call,)] = query(upgraded, "SELECT session_id FROM start_call('demo_user', 'room', 'video', false, 'key')")
    stored = f"call_sessions WHERE id = '{call}'"
    costs = [cost(stored), cost("start_call('demo_user', 'room', 'video', false, 'key')"), cost(f"tick_call('{call}')")]
    execute(upgraded, f"UPDATE call_sessions SET start_time = start_time - interval '61 seconds' WHERE id = '{call}'")
    costs += [cost(f"tick_call('{call}')"), cost(f"set_call_turn('{call}', true)"), cost(stored)]
    costs += [cost("oblivion.live_calls"), cost(f"end_call('{call}')"), cost(f"end_call('{call}')"), cost(stored)]
    assert costs == ["0.0000", "0.0000", "2.0000", *["4.0000"] * 7]


@pytest.mark.parametrize("function", ["settle_calls(0)", "burn_calls(0)", "reap_stale_calls('1 s', 0)"])
def test_sweep_of_no_calls_is_refused(upgraded: URL, function: str) -> None:
    with pytest.raises(DBAPIError, match="max_calls is '0'") as refused:
        query(upgraded, f"SELECT * FROM {function}")
    assert sqlstate(refused.value) == "22023"


def test_sweep_warns_of_calls_that_stay_unsettled(upgraded: URL) -> None:
    [(call,)] = query(upgraded, "SELECT session_id FROM start_call('demo_user', 'room', 'video')")
    execute(upgraded, f"UPDATE call_sessions SET start_time = start_time - interval '1000 years' WHERE id = '{call}'")
    assert query(upgraded, f"SELECT status FROM end_call('{call}')") == [("unsettled",)]
    told: list[tuple[str | None, str | None]] = []
    with session(upgraded) as scheduler:
        scheduler.add_notice_handler(lambda d: told.append((d.severity, d.message_primary)))
        scheduler.execute("SELECT count(*) FROM settle_calls()")
        assert told == [("WARNING", "1 calls could not be billed")]
        told.clear()
        scheduler.execute("UPDATE call_sessions SET start_time = end_time - interval '1 s'")
        scheduler.execute("SELECT count(*) FROM settle_calls()")
        assert told == []


def test_quote_for_another_is_unknown(closed: URL) -> None:
    """As documented: it has the rate, which everybody may know, and nothing of the account."""
    with request(closed, "authenticated", signed_in("mine")) as connection:
        row = connection.exec_driver_sql("SELECT * FROM call_quote('theirs', 'video')").one()
    assert (row[0], row[1], row[3], row[4]) == ("unknown", 2, None, None)
