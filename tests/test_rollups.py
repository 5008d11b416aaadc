"""Reports are what plain sums over the rows are: in every transaction, whatever is done, by many at once, for all."""

from __future__ import annotations

import os
import random
import re
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from legacy_states import STATES, State
from plain_reports import PLAIN, REPORTS, wrong
from psycopg import IsolationLevel
from sqlalchemy.exc import ProgrammingError
from support import examples, execute, function_sql, libpq, program, psql, query, request, run, signed_in, wait_until

import oblivion_schema
from oblivion_schema.deploy.upgrade import config
from oblivion_schema.verification.checklist import verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import URL, Engine

# The same examples each time; OBLIVION_TEST_EXAMPLES looks for others, as many as it says.
_EXAMPLES: Final = int(os.environ.get("OBLIVION_TEST_EXAMPLES", "0"))
_SETTINGS: Final = settings(
    max_examples=_EXAMPLES or examples(10, quick=3),
    derandomize=not _EXAMPLES,
    database=None,
    deadline=None,
    phases={Phase.generate},
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)

USERS: Final = ("ann", "ben", "cem", "dot")
# At the borders of UTC days, in other zones, and at no finite time.
TIMES: Final = (
    "2026-03-01 00:00:00+00",
    "2026-02-28 23:59:59.999999+00",
    "2026-03-01 00:30:00+02",
    "2026-03-01 12:00:00+00",
    "2026-03-02 12:00:00.000001+00",
    "2026-03-03 23:00:00-02",
    "infinity",
    "-infinity",
)
SIZES: Final = (0, 1, 1, 1, 2, 3, 99, 100, 101, 230)
CREDITS: Final = ("0", "0.1", "1.2345", "999999.9999", "-3", "NaN")
ACCOUNTS: Final = "INSERT INTO user_accounts (user_id) VALUES ('ann'), ('ben'), ('cem'), ('dot') ON CONFLICT DO NOTHING"


@contextmanager
def session(url: URL, **settings: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A session of its own, in autocommit, with these settings."""
    with closing(psycopg.connect(libpq(url), autocommit=True, prepare_threshold=3)) as connection:
        for name, value in settings.items():
            connection.execute(f"SET {name} = '{value}'")
        yield connection


def literal(value: object) -> str:
    """The value as SQL has it."""
    return "NULL" if value is None else str(value) if isinstance(value, int) else f"'{value}'"


class History:
    """What may happen to rows of usage and calls, at random."""

    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]], chance: random.Random) -> None:
        self.connection, self.chance = connection, chance
        self.done: list[str] = []

    def do(self, sql: str) -> list[tuple[Any, ...]]:
        """One statement; what it returns."""
        self.done.append(sql[:400])
        cursor = self.connection.execute(sql)
        return cursor.fetchall() if cursor.description else []

    def usage(self) -> dict[str, object]:
        """A new row of usage."""
        return {
            "user_id": self.chance.choice(USERS),
            "session_id": "by hand",
            "tokens_used": self.chance.choice((0, 1, 2, 12, 2147483647)),
            "mode": self.chance.choice(("voice", "video")),
            "used_turn": self.chance.choice(("true", "false")),
            "duration_seconds": self.chance.choice((None, 0, 61, 2147483647)),
            '"timestamp"': self.chance.choice(TIMES),
        }

    def call(self) -> dict[str, object]:
        """A new row of calls."""
        return {
            "room_id": "by hand",
            "user_id": self.chance.choice((*USERS, "anonymous_1", None)),
            "start_time": self.chance.choice(TIMES),
            "end_time": self.chance.choice((None, None, *TIMES)),
            "mode": self.chance.choice(("voice-only", "video")),
            "used_turn": self.chance.choice(("true", "false")),
            "credit_cost": self.chance.choice(CREDITS),
        }

    def rows(self) -> tuple[str, list[dict[str, object]]]:
        """A table, and new rows of it."""
        table, new = self.chance.choice((("token_usage", self.usage), ("call_sessions", self.call)))
        return table, [new() for _ in range(self.chance.choice(SIZES))]

    def insert(self, on_conflict: str = "", *, with_id: bool = False) -> None:
        table, rows = self.rows()
        if not rows:
            new = self.usage() if table == "token_usage" else self.call()
            self.do(
                f"INSERT INTO {table} ({', '.join(new)}) SELECT {', '.join(map(literal, new.values()))} WHERE false"
            )
            return
        columns = [*rows[0]]
        values = [[literal(value) for value in row.values()] for row in rows]
        if with_id:
            known = self.some(table)
            columns.append("id")
            for row in values:
                row.append(literal(known.pop()) if known else "gen_random_uuid()")
        tuples = ", ".join(f"({', '.join(row)})" for row in values)
        self.do(f"INSERT INTO {table} ({', '.join(columns)}) VALUES {tuples} {on_conflict}")

    def upsert(self) -> None:
        columns = self.chance.choice(("mode", "user_id", "used_turn")), "user_id"
        changes = ", ".join(f"{column} = excluded.{column}" for column in dict.fromkeys(columns))
        self.insert(f"ON CONFLICT (id) DO UPDATE SET {changes}", with_id=True)

    def copy(self) -> None:
        table, rows = self.rows()
        if not rows:
            return
        self.done.append(f"COPY {table}, {len(rows)} rows")
        with self.connection.cursor().copy(f"COPY {table} ({', '.join(rows[0])}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(list(row.values()))

    def some(self, table: str) -> list[str]:
        """Ids of some rows, or of most."""
        known = [str(row) for (row,) in self.do(f"SELECT id FROM {table} ORDER BY id")]
        return self.chance.sample(known, min(len(known), self.chance.choice((0, 1, 1, 1, 2, 5, 150))))

    def changes(self, table: str) -> str:
        """Some columns anew."""
        new = self.usage() if table == "token_usage" else self.call()
        columns = self.chance.sample([*new], self.chance.choice((1, 1, 2, len(new))))
        return ", ".join(f"{column} = {literal(new[column])}" for column in columns)

    @staticmethod
    def those(ids: Sequence[str]) -> str:
        """The condition that a row is one of these."""
        return f"id = ANY ('{{{','.join(ids)}}}')"

    def update(self) -> None:
        table = self.chance.choice(("token_usage", "call_sessions"))
        self.do(f"UPDATE {table} SET {self.changes(table)} WHERE {self.those(self.some(table))}")

    def update_row_by_row(self) -> None:
        """One statement of another, so that rows differ in what they become."""
        table, time_ = self.chance.choice((("token_usage", '"timestamp"'), ("call_sessions", "start_time")))
        change = self.chance.choice(
            (
                f"{time_} = {time_} + interval '1 day'",
                f"{time_} = {time_} - interval '1 day'",
                f"{time_} = o.{time_}, user_id = o.user_id",
                f"mode = o.mode, used_turn = NOT {table}.used_turn",
                "user_id = o.user_id",
            )
        ).replace(f"= {time_}", f"= {table}.{time_}")
        ids = self.some(table)
        self.do(
            f"UPDATE {table} SET {change} FROM (SELECT *, lead(id, 1, id) OVER (ORDER BY id) AS before"
            f" FROM {table} WHERE {self.those(ids)}) AS o WHERE o.before = {table}.id"
        )

    def two_updates_in_one(self) -> None:
        table = self.chance.choice(("token_usage", "call_sessions"))
        ids = self.some(table)
        half = len(ids) // 2
        self.do(
            f"WITH a AS (UPDATE {table} SET {self.changes(table)} WHERE {self.those(ids[:half])} RETURNING id),"
            f" b AS (UPDATE {table} SET {self.changes(table)} WHERE {self.those(ids[half : half + 2])} RETURNING id)"
            f" DELETE FROM {table} WHERE {self.those(ids[half + 2 :])}"
        )

    def merge(self) -> None:
        table = self.chance.choice(("token_usage", "call_sessions"))
        new = self.usage() if table == "token_usage" else self.call()
        ids = [*self.some(table), "00000000-0000-4000-8000-000000000000"]
        self.do(
            f"MERGE INTO {table} AS t USING unnest('{{{','.join(ids)}}}'::uuid[]) WITH ORDINALITY AS s (id, n)"
            " ON t.id = s.id"
            f" WHEN MATCHED AND s.n % 3 = 0 THEN DELETE"
            f" WHEN MATCHED AND s.n % 3 = 1 THEN UPDATE SET {self.changes(table)}"
            f" WHEN NOT MATCHED THEN INSERT ({', '.join(new)}) VALUES ({', '.join(map(literal, new.values()))})"
        )

    def delete(self) -> None:
        table = self.chance.choice(("token_usage", "call_sessions"))
        self.do(f"DELETE FROM {table} WHERE {self.those(self.some(table))}")

    def delete_newest(self) -> None:
        self.do(
            'DELETE FROM token_usage AS t WHERE t."timestamp" = (SELECT max("timestamp") FROM token_usage AS o'
            f" WHERE o.user_id = t.user_id) AND user_id = '{self.chance.choice(USERS)}'"
        )

    def delete_accounts(self) -> None:
        self.do(f"DELETE FROM user_accounts WHERE user_id = ANY ('{{{','.join(self.chance.sample(USERS, 2))}}}')")
        self.do(ACCOUNTS)

    def truncate(self) -> None:
        self.do(f"TRUNCATE {self.chance.choice(('token_usage', 'call_sessions CASCADE', 'user_accounts CASCADE'))}")
        self.do(ACCOUNTS)

    def fold(self) -> None:
        most = self.chance.choice((1, 2, 7, 10000))
        self.do(f"SELECT oblivion.fold_{self.chance.choice(('usage', 'calls'))}({most})")

    def metered_call(self) -> None:
        [(call, *_)] = self.do(f"SELECT * FROM start_call('{self.chance.choice(USERS)}', 'metered', 'video')")
        for _ in range(self.chance.randrange(3)):
            self.do(f"UPDATE call_sessions SET start_time = start_time - interval '61 s' WHERE id = '{call}'")
            self.do(
                self.chance.choice(
                    (
                        f"SELECT tick_call('{call}')",
                        f"SELECT set_call_turn('{call}', true)",
                        f"SELECT end_call('{call}')",
                    )
                )
            )

    def step(self) -> None:
        """One of all this."""
        actions: tuple[Callable[[], None], ...] = (
            self.insert,
            self.insert,
            self.upsert,
            self.copy,
            self.update,
            self.update,
            self.update_row_by_row,
            self.two_updates_in_one,
            self.merge,
            self.delete,
            self.delete_newest,
            self.delete_accounts,
            self.metered_call,
            self.fold,
            self.fold,
            self.fold,
        )
        self.chance.choice(actions)()


def live(history: History, other: psycopg.Connection[tuple[Any, ...]]) -> None:
    """One transaction of several steps, some of them taken back; checked after each, inside and outside."""
    chance, connection = history.chance, history.connection
    connection.isolation_level = chance.choice(
        (None, None, IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE)
    )
    with connection.transaction() as everything:
        history.done.append(f"BEGIN {connection.isolation_level}")
        for _ in range(chance.randrange(1, 5)):
            try:
                with connection.transaction() as savepoint:
                    history.step()
                    assert not wrong(connection.execute), history.done
                    if chance.random() < 0.2:
                        history.done.append("ROLLBACK TO")
                        raise psycopg.Rollback(savepoint)
            except (psycopg.errors.ObjectNotInPrerequisiteState, psycopg.errors.FeatureNotSupported):
                # A call that cannot be billed, as one that began at no finite time or cost NaN, is not deleted.
                history.done.append("refused")
            assert not wrong(connection.execute), history.done
        assert not wrong(other.execute), history.done
        if chance.random() < 0.1:
            # Nobody else reads until it ends.
            history.truncate()
            assert not wrong(connection.execute), history.done
        if chance.random() < 0.2:
            history.done.append("ROLLBACK")
            raise psycopg.Rollback(everything)
    for each in (connection, other):
        assert not wrong(each.execute), history.done


@pytest.mark.server
def test_reports_are_plain_sums_whatever_happens(upgraded: URL) -> None:
    with session(upgraded) as connection, session(upgraded) as other:

        @_SETTINGS
        @given(st.randoms(use_true_random=True))
        def histories(chance: random.Random) -> None:
            connection.execute("TRUNCATE call_sessions, user_accounts CASCADE")
            connection.execute(ACCOUNTS)
            history = History(connection, chance)
            for _ in range(10):
                live(history, other)

        histories()


# -- Who folds what, and when


def usage(user: str, at: str = "now()", *, rows: int = 1) -> str:
    """Rows of usage, all of the same time."""
    return (
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds, timestamp)"
        f" SELECT '{user}', 'by hand', 5, 'video', false, 61, {at} FROM generate_series(1, {rows})"
    )


FOLD: Final = "SELECT oblivion.fold_usage(10000), oblivion.fold_calls(10000)"
HOLD_FOLDS: Final = (
    "SELECT pg_advisory_xact_lock(hashtextextended('oblivion.fold_usage', 0)),"
    " pg_advisory_xact_lock(hashtextextended('oblivion.fold_calls', 0))"
)


@contextmanager
def nothing_folded(url: URL) -> Iterator[None]:
    """No writer folds by chance meanwhile."""
    with session(url) as holder, holder.transaction():
        holder.execute(HOLD_FOLDS)
        yield


def unfolded(url: URL, *statements: str) -> None:
    """Execute these, each in a transaction of its own that does not fold by chance."""
    with nothing_folded(url), session(url, default_transaction_isolation="repeatable read") as connection:
        for sql in statements:
            connection.execute(sql)


DELTAS: Final = "SELECT count(*) FROM (TABLE oblivion.usage_deltas) AS d"


def test_deltas_of_days_and_accounts_that_are_gone_leave_nothing(upgraded: URL) -> None:
    with session(upgraded) as connection:
        for sql in (usage("demo_user", rows=150), "INSERT INTO call_sessions (room_id, mode) VALUES ('r', 'video')"):
            connection.execute(sql)
        connection.execute(FOLD)
        connection.execute("DELETE FROM token_usage; DELETE FROM call_sessions")
        connection.execute(FOLD)
        for table in ("usage_deltas", "call_deltas", "daily_usage", "user_usage", "daily_calls"):
            assert connection.execute(f"TABLE oblivion.{table}").fetchall() == []


def test_writers_fold_by_themselves(upgraded: URL) -> None:
    """By chance: that none of so many did has a chance of 2e-9."""
    with session(upgraded) as connection:
        connection.execute(
            "DO $$ BEGIN FOR i IN 1..20000 LOOP"
            " INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
            " VALUES ('demo_user', 'by hand', 1, 'voice', false); END LOOP; END $$"
        )
        assert connection.execute("SELECT sessions > 0 FROM oblivion.user_usage").fetchone() == (True,)
        assert not wrong(connection.execute)


@pytest.mark.parametrize(
    ("rows", "view"),
    [
        ("token_usage", "daily_token_usage"),
        ("token_usage", "user_token_summary"),
        ("call_sessions", "daily_billing_summary"),
    ],
)
@pytest.mark.server
def test_truncate_passes_readers_who_queue_behind_it(upgraded: URL, rows: str, view: str) -> None:
    """They hold what they read up to the rows' table: were a roll-up among that, both would wait for each other."""
    with ExitStack() as stack:
        early, truncating, late, watcher = (stack.enter_context(session(upgraded)) for _ in range(4))
        threads = stack.enter_context(ThreadPoolExecutor(2))

        def begin(connection: psycopg.Connection[tuple[Any, ...]], sql: str) -> Any:
            waiting = f"SELECT cardinality(pg_blocking_pids({connection.info.backend_pid})) > 0"
            asked = threads.submit(connection.execute, sql)
            wait_until(lambda: watcher.execute(waiting).fetchone() == (True,))
            return asked

        with early.transaction():
            early.execute(f"SELECT FROM {rows}")
            both = begin(truncating, f"TRUNCATE {rows} CASCADE"), begin(late, f"SELECT * FROM {view}")
        for asked in both:
            asked.result()


# -- Many at once


@dataclass
class Crowd:
    """Sessions that do as they like until told to stop; what went wrong with any of them is raised."""

    url: URL

    def __post_init__(self) -> None:
        self.over = threading.Event()

    def run(
        self, seconds: float, *everybody: Callable[[psycopg.Connection[tuple[Any, ...]], random.Random], None]
    ) -> None:
        """Let each do its work again and again."""

        def work(number: int) -> int:
            chance, times = random.Random(number), 0
            # Nobody waits for anybody for long, nor, which would take a second to be seen, in a circle.
            with session(self.url, lock_timeout="700ms") as connection:
                while not self.over.is_set():
                    everybody[number](connection, chance)
                    times += 1
            return times

        with ThreadPoolExecutor(len(everybody)) as threads:
            working = [threads.submit(work, number) for number in range(len(everybody))]
            try:
                self.over.wait(seconds)
            finally:
                self.over.set()
        for each in working:
            assert each.result() > 1


def write(connection: psycopg.Connection[tuple[Any, ...]], chance: random.Random) -> None:
    """A transaction on rows of one's own, of all accounts and days; it may be taken back, as a whole or in part."""
    mine = f"writer {connection.info.backend_pid}"
    user, at = chance.choice(USERS), f"timestamptz '2026-03-01' + interval '{chance.randrange(99)} h'"
    of_mine = "SELECT id FROM {} WHERE {} = '{}' ORDER BY random() LIMIT {}"
    some_usage = of_mine.format("token_usage", "session_id", mine, chance.choice((1, 3, 120)))
    some_calls = of_mine.format("call_sessions", "room_id", mine, chance.choice((1, 3)))
    statements = (
        usage(user, at),
        usage(user, at, rows=chance.choice((2, 130))),
        f"UPDATE token_usage SET tokens_used = tokens_used + 1 WHERE id IN ({some_usage})",
        f"UPDATE token_usage SET timestamp = {at}, user_id = '{user}', mode = 'voice' WHERE id IN ({some_usage})",
        f"DELETE FROM token_usage WHERE id IN ({some_usage})",
        f"INSERT INTO call_sessions (room_id, start_time, mode, credit_cost) VALUES ('{mine}', {at}, 'video', 1.5)",
        f"UPDATE call_sessions SET end_time = {at}, credit_cost = 'NaN' WHERE id IN ({some_calls})",
        f"UPDATE call_sessions SET start_time = {at}, mode = 'voice-only' WHERE id IN ({some_calls})",
        f"DELETE FROM call_sessions WHERE id IN ({some_calls})",
        FOLD,
        "SELECT oblivion.fold_usage(3)",
    )
    connection.isolation_level = chance.choice((None, None, None, IsolationLevel.REPEATABLE_READ))
    with connection.transaction() as everything:
        for _ in range(chance.randrange(1, 5)):
            with connection.transaction() as savepoint:
                # From an old snapshot a fold may have to be repeated (40001).
                able = statements if connection.isolation_level is None else statements[:-2]
                connection.execute(chance.choice(able).replace("'by hand'", f"'{mine}'"))
                if chance.random() < 0.2:
                    raise psycopg.Rollback(savepoint)
        if chance.random() < 0.2:
            raise psycopg.Rollback(everything)


def write_for_long(connection: psycopg.Connection[tuple[Any, ...]], chance: random.Random) -> None:
    """A transaction that folds what there is, and then stays open for longer than anybody waits."""
    connection.isolation_level = None
    with connection.transaction() as everything:
        connection.execute(usage(chance.choice(USERS), rows=3))
        connection.execute(FOLD)
        time.sleep(0.9)
        if chance.random() < 0.5:
            raise psycopg.Rollback(everything)


def call(connection: psycopg.Connection[tuple[Any, ...]], chance: random.Random) -> None:
    """A metered call, of an account that nobody else calls from."""
    user = f"caller {connection.info.backend_pid}"
    connection.execute(f"INSERT INTO user_accounts VALUES ('{user}', 9999999) ON CONFLICT DO NOTHING")
    [(session_id,)] = connection.execute(f"SELECT session_id FROM start_call('{user}', 'room', 'video')")
    for function in ("tick_call", *chance.choices(("tick_call", "end_call"), k=2), "end_call"):
        connection.execute(
            f"UPDATE call_sessions SET start_time = start_time - interval '1 min' WHERE id = '{session_id}'"
        )
        connection.execute(f"SELECT {function}('{session_id}')")
    connection.execute(FOLD)


def read(connection: psycopg.Connection[tuple[Any, ...]], chance: random.Random) -> None:
    """Two looks from one snapshot, or two at what is there now."""
    connection.isolation_level = chance.choice((None, IsolationLevel.REPEATABLE_READ))
    with connection.transaction():
        for _ in range(2):
            assert not wrong(connection.execute)


@pytest.mark.server
def test_reports_are_right_while_many_write(upgraded: URL) -> None:
    execute(upgraded, ACCOUNTS)
    Crowd(upgraded).run(4, write, write, write, write_for_long, call, read, read)
    assert wrong(lambda sql: query(upgraded, sql)) == []
    while query(upgraded, DELTAS) != [(0,)]:
        execute(upgraded, FOLD)
    assert wrong(lambda sql: query(upgraded, sql)) == []


# -- Roll-ups that are off


@dataclass(frozen=True)
class Spoilt:
    """What somebody does past the triggers, of which relation that is seen, and in how many sums."""

    sql: str
    drift: str
    sums: int = 1


# Of `ann` there is a bulk of rows, of two days.
DAY: Final = "'2026-03-01 10:00'"
NEXT_DAY: Final = "'2026-03-02 10:00'"
ROWS_OF_ANN: Final = (
    f"{ACCOUNTS}; {usage('ann', DAY, rows=150)}; {usage('ann', NEXT_DAY)};"
    " INSERT INTO call_sessions (room_id, start_time, end_time, mode, credit_cost)"
    " VALUES ('r', '2026-03-01 10:00', '2026-03-01 10:01', 'video', 1.5),"
    " ('r', '2026-03-02 10:00', NULL, 'video', 'NaN')"
)
SPOILT: Final = {
    "days are gone": Spoilt("DELETE FROM oblivion.daily_usage", "daily_usage_drift", 2),
    "a day has a wrong sum of rows": Spoilt(
        "UPDATE oblivion.daily_usage SET sessions = sessions + 1 WHERE usage_date = '2026-03-01'", "daily_usage_drift"
    ),
    "a day has a wrong sum of tokens": Spoilt(
        "UPDATE oblivion.daily_usage SET tokens = 0 WHERE usage_date = '2026-03-01'", "daily_usage_drift"
    ),
    "a day has a wrong sum of seconds": Spoilt(
        "UPDATE oblivion.daily_usage SET seconds = -1 WHERE usage_date = '2026-03-01'", "daily_usage_drift"
    ),
    "a day has no rows": Spoilt(
        "INSERT INTO oblivion.daily_usage VALUES ('2025-01-01', 'video', true, 3, 4, 5)"
        " ON CONFLICT (usage_date, mode, used_turn) DO UPDATE SET sessions = 9",
        "daily_usage_drift",
    ),
    "accounts are gone": Spoilt("DELETE FROM oblivion.user_usage", "user_usage_drift"),
    "an account has a wrong sum of rows": Spoilt(
        "UPDATE oblivion.user_usage SET sessions = 0 WHERE user_id = 'ann'", "user_usage_drift"
    ),
    "an account has a wrong sum of tokens": Spoilt(
        "UPDATE oblivion.user_usage SET tokens = tokens - 1 WHERE user_id = 'ann'", "user_usage_drift"
    ),
    "an account was last seen later": Spoilt(
        "UPDATE oblivion.user_usage SET last_usage = 'infinity', has_lost_rows = false WHERE user_id = 'ann'",
        "user_usage_drift",
    ),
    "an account was last seen earlier": Spoilt(
        "UPDATE oblivion.user_usage SET last_usage = '2026-03-01', has_lost_rows = false WHERE user_id = 'ann'",
        "user_usage_drift",
    ),
    "an account was never seen": Spoilt(
        "UPDATE oblivion.user_usage SET last_usage = NULL, has_lost_rows = false WHERE user_id = 'ann'",
        "user_usage_drift",
    ),
    "an account has no rows": Spoilt(
        "INSERT INTO oblivion.user_usage VALUES ('demo_user', 0, 0, now(), false)"
        " ON CONFLICT (user_id) DO UPDATE SET sessions = 9",
        "user_usage_drift",
    ),
    "calls are gone": Spoilt("DELETE FROM oblivion.daily_calls", "daily_calls_drift", 2),
    "calls cost something else": Spoilt(
        "UPDATE oblivion.daily_calls SET credits = credits + 0.0001 WHERE call_date = '2026-03-01'", "daily_calls_drift"
    ),
    "all calls cost something": Spoilt(
        "UPDATE oblivion.daily_calls SET credits_unknown = 0 WHERE call_date = '2026-03-02'", "daily_calls_drift"
    ),
    "calls have another length": Spoilt(
        "UPDATE oblivion.daily_calls SET seconds = 0.5 WHERE call_date = '2026-03-01'", "daily_calls_drift"
    ),
    "calls have no end": Spoilt(
        "UPDATE oblivion.daily_calls SET ended_calls = 0 WHERE call_date = '2026-03-01'", "daily_calls_drift"
    ),
    "calls are of another kind": Spoilt(
        "UPDATE oblivion.daily_calls SET video_calls = 0, voice_calls = 1, turn_calls = 1"
        " WHERE call_date = '2026-03-01'",
        "daily_calls_drift",
    ),
    "a day has no calls": Spoilt(
        "INSERT INTO oblivion.daily_calls VALUES ('2025-01-01', 0, 0, 0, 0, 1, 0, 0, 0)"
        " ON CONFLICT (call_date) DO UPDATE SET calls = 9",
        "daily_calls_drift",
    ),
    "a row came unseen": Spoilt(
        f"SET LOCAL session_replication_role = replica; {usage('ann', DAY)};"
        " SET LOCAL session_replication_role = origin",
        "user_usage_drift",
        2,
    ),
    "rows went unseen": Spoilt(
        "SET LOCAL session_replication_role = replica; DELETE FROM token_usage"
        " WHERE timestamp = '2026-03-02 10:00' AND session_id = 'by hand';"
        " SET LOCAL session_replication_role = origin",
        "user_usage_drift",
        2,
    ),
}
LOST_DELTAS: Final = Spoilt("DELETE FROM oblivion.usage_deltas; DELETE FROM oblivion.call_deltas", "usage_drift", 5)


@pytest.mark.parametrize("spoilt", [*SPOILT.values(), LOST_DELTAS], ids=[*SPOILT, "deltas are gone"])
@pytest.mark.few(spoilt=(0, 2, 8, 12, 19, 21))
def test_sum_that_is_off_is_named_and_mended(shared_engine: Engine, spoilt: Spoilt) -> None:
    with shared_engine.connect() as connection, connection.begin() as everything:
        with nothing_folded(shared_engine.url):
            connection.exec_driver_sql(ROWS_OF_ANN)
        if spoilt is not LOST_DELTAS:
            connection.exec_driver_sql(FOLD)
        assert not wrong(connection.exec_driver_sql)
        connection.exec_driver_sql(spoilt.sql)
        [line] = [
            str(check)
            for check in verify(connection, ScriptDirectory.from_config(config()))
            if "sum in the roll-ups" in check.subject
        ]
        assert line.startswith(f"FAIL  every sum in the roll-ups is that of its rows: {spoilt.sums} sums are wrong (")
        assert spoilt.drift in line
        assert line.endswith("): run SELECT oblivion.rebuild_rollups()")
        assert connection.exec_driver_sql("SELECT oblivion.rebuild_rollups()").scalar() == spoilt.sums
        assert not wrong(connection.exec_driver_sql)
        assert connection.exec_driver_sql("SELECT oblivion.rebuild_rollups()").scalar() == 0
        everything.rollback()


@pytest.mark.full
def test_rebuild_mends_while_many_write(upgraded: URL) -> None:
    execute(upgraded, f"{ACCOUNTS}; {usage('ann', rows=500)}; {FOLD}")
    seen: list[bool] = []

    def spoil_and_mend(connection: psycopg.Connection[tuple[Any, ...]], chance: random.Random) -> None:
        connection.isolation_level = None
        with connection.transaction():
            # As somebody would who has to wait for whoever folds just now.
            connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('oblivion.fold_usage', 0))")
            connection.execute(chance.choice([*SPOILT.values()]).sql)
        seen.append(bool(wrong(connection.execute)))
        for _ in range(2):
            connection.execute("SELECT oblivion.rebuild_rollups()")

    Crowd(upgraded).run(3, write, write, call, spoil_and_mend)
    assert any(seen)
    execute(upgraded, "SELECT oblivion.rebuild_rollups()")
    assert wrong(lambda sql: query(upgraded, sql)) == []


def test_second_rebuild_at_once_waits_and_finds_nothing(upgraded: URL) -> None:
    execute(upgraded, f"{ROWS_OF_ANN}; {FOLD}; DELETE FROM oblivion.daily_usage; DELETE FROM oblivion.daily_calls")
    rebuild = "SELECT oblivion.rebuild_rollups()"
    with session(upgraded) as one, session(upgraded) as other, session(upgraded) as watcher:
        waiting = f"SELECT cardinality(pg_blocking_pids({other.info.backend_pid})) > 0"
        with ThreadPoolExecutor(1) as thread, one.transaction():
            assert one.execute(rebuild).fetchone() == (4,)
            second = thread.submit(lambda: other.execute(rebuild).fetchone())
            wait_until(lambda: watcher.execute(waiting).fetchone() == (True,))
            one.execute(usage("ben"))
        assert second.result() == (0,)
        assert not wrong(one.execute)


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_rebuild_is_refused_where_it_cannot_see_what_others_mend(upgraded: URL, level: IsolationLevel) -> None:
    with session(upgraded) as connection:
        connection.isolation_level = level
        with pytest.raises(psycopg.errors.ActiveSqlTransaction) as refused, connection.transaction():
            connection.execute("SELECT oblivion.rebuild_rollups()")
    assert refused.value.diag.message_primary == "rebuild_rollups() has to see what others have repaired"
    assert refused.value.diag.message_hint == "Call it in READ COMMITTED"


# -- Databases that come and go


@pytest.mark.parametrize("form", ["plain", "custom"])
@pytest.mark.few(form="custom")
@pytest.mark.server
def test_restored_database_has_right_reports_and_goes_on(
    upgraded: URL, new_database: Callable[..., URL], tmp_path: Path, form: str
) -> None:
    restored = new_database()
    execute(
        upgraded, f"{ROWS_OF_ANN}; {FOLD}; {usage('ben', DAY, rows=120)}; DELETE FROM token_usage WHERE user_id = 'ann'"
    )
    execute(upgraded, "INSERT INTO call_sessions (room_id, mode, credit_cost) VALUES ('r', 'video', 1)")
    dumped = tmp_path / "dump"
    subprocess.run(
        [program("pg_dump"), "--no-sync", f"--format={form}", f"--file={dumped}", libpq(upgraded)], check=True
    )
    script = dumped
    if form != "plain":
        script = tmp_path / "script"
        subprocess.run([program("pg_restore"), f"--file={script}", dumped], check=True)
    # The programs may be a newer server's; up to 16 there is no such setting.
    psql(restored, re.sub(r"(?m)^SET transaction_timeout.*\n", "", script.read_text(encoding="utf-8")))
    assert wrong(lambda sql: query(restored, sql)) == []
    reports = [f"TABLE {view}" for view in ("daily_token_usage", "daily_billing_summary", "user_token_summary")]
    for sql in reports:
        assert sorted(map(str, query(restored, sql))) == sorted(map(str, query(upgraded, sql)))
    execute(
        restored, f"{usage('ann', rows=2)}; DELETE FROM token_usage WHERE user_id = 'ben'; DELETE FROM call_sessions"
    )
    assert wrong(lambda sql: query(restored, sql)) == []
    execute(restored, FOLD)
    assert wrong(lambda sql: query(restored, sql)) == []


@pytest.mark.parametrize("state", [STATES[6], STATES[-1]], ids=str)
@pytest.mark.few(state="billing twice")
def test_reports_of_an_adopted_database_are_right(empty: URL, state: State) -> None:
    psql(empty, state.script(rows=True))
    if state.has_billing:
        execute(empty, f"{ACCOUNTS}; {usage('ann', DAY, rows=120)}")
    oblivion_schema.upgrade(empty)
    assert len(query(empty, "TABLE oblivion.daily_calls")) > 1
    assert wrong(lambda sql: query(empty, sql)) == []
    execute(empty, "UPDATE call_sessions SET credit_cost = 'NaN'; DELETE FROM token_usage WHERE duration_seconds > 60")
    execute(empty, FOLD)
    assert wrong(lambda sql: query(empty, sql)) == []


def test_database_that_was_written_to_at_the_revision_before_has_right_reports(empty: URL) -> None:
    oblivion_schema.upgrade(empty, "004")
    execute(empty, ROWS_OF_ANN)
    for _ in range(2):
        oblivion_schema.upgrade(empty)
        assert wrong(lambda sql: query(empty, sql)) == []
        assert run("downgrade", "004", url=empty).status == 0
        execute(empty, f"{usage('ben', DAY)}; DELETE FROM call_sessions WHERE credit_cost = 1.5")


@pytest.mark.parametrize("to", ["downgrade", "upgrade"])
def test_revision_passes_readers_who_queue_behind_it(empty: URL, to: str) -> None:
    """Who queues for a table of rows holds the view through which that is read."""
    oblivion_schema.upgrade(empty, "005" if to == "downgrade" else "004")
    over = threading.Event()

    def read_on(view: str) -> None:
        with session(empty, lock_timeout="9s") as connection:
            while not over.is_set():
                connection.execute(f"SELECT * FROM {view}")

    with session(empty) as early, session(empty) as watcher, ThreadPoolExecutor(4) as threads:
        with early.transaction():
            early.execute("SELECT FROM token_usage, call_sessions")
            revising = threads.submit(run, to, "004" if to == "downgrade" else "005", url=empty)
            waiting = f"SELECT bool_or({early.info.backend_pid} = ANY (pg_blocking_pids(pid))) FROM pg_stat_activity"
            wait_until(lambda: watcher.execute(waiting).fetchone() == (True,))
            views = ("daily_token_usage", "daily_billing_summary", "user_token_summary")
            readers = [threads.submit(read_on, view) for view in views]
            time.sleep(1.1)  # longer than it takes until a deadlock is seen
        assert revising.result().status == 0
        over.set()
        for reader in readers:
            reader.result()


# -- Who sees what


MANY_ROWS: Final = ";".join(
    f"INSERT INTO user_accounts (user_id) VALUES ('{user}') ON CONFLICT DO NOTHING; {usage(user, DAY, rows=rows)};"
    f" {usage(user, NEXT_DAY)}; INSERT INTO call_sessions (room_id, user_id, start_time, mode, credit_cost)"
    f" VALUES ('r', '{user}', {DAY}, 'video', {rows})"
    for user, rows in (("mine", 120), ("theirs", 3))
)
TOTALS: Final = (
    "SELECT (SELECT sum(session_count) FROM public.daily_token_usage),"
    " (SELECT sum(total_sessions) FROM public.user_token_summary),"
    " (SELECT sum(total_calls) FROM public.daily_billing_summary)"
)
ROWS: Final = (
    "SELECT u, u, c FROM (SELECT count(*) FROM token_usage) AS t (u), (SELECT count(*) FROM call_sessions) AS s (c)"
)


@pytest.fixture
def shared_rows(upgraded: URL) -> URL:
    """A database with rows of two users, whose sums are in roll-ups and in deltas."""
    execute(upgraded, f"{MANY_ROWS}; {FOLD}; {MANY_ROWS}; DELETE FROM token_usage WHERE timestamp = {NEXT_DAY}")
    return upgraded


@pytest.mark.parametrize("then", ["", FOLD], ids=["folded in part", "folded"])
@pytest.mark.server
def test_everybody_sees_what_the_rows_that_they_see_sum_up_to(shared_rows: URL, then: str) -> None:
    execute(shared_rows, then or "SELECT")
    everything = query(shared_rows, ROWS)
    assert query(shared_rows, TOTALS) == everything
    for mode in ("open", "authenticated"):
        assert run("access", mode, url=shared_rows).status == 0
        for role, claims in (
            ("anon", None),
            ("authenticated", signed_in("mine")),
            ("authenticated", signed_in("nobody we know")),
            ("service_role", None),
        ):
            with request(shared_rows, role, claims) as connection:
                if (mode, role) == ("authenticated", "anon"):
                    for view in PLAIN:
                        with (
                            pytest.raises(ProgrammingError, match="permission denied for view"),
                            connection.begin_nested(),
                        ):
                            connection.exec_driver_sql(f"TABLE {view}")
                    continue
                assert wrong(connection.exec_driver_sql, REPORTS) == []
                seen = [tuple(connection.exec_driver_sql(TOTALS).one())]
                for view in ("daily_token_usage", "daily_billing_summary"):
                    days = connection.exec_driver_sql(f"TABLE {view}").scalars().all()
                    assert days == sorted(days, reverse=True)
                assert (seen == everything) == (mode == "open" or role == "service_role")
        assert wrong(lambda sql: query(shared_rows, sql)) == []
        assert query(shared_rows, TOTALS) == everything


@pytest.fixture
def outsider(server: URL, upgraded: URL) -> Iterator[str]:
    """A role of somebody's own, which has nothing here."""
    name = f"{upgraded.database}_outsider"
    execute(server, f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    yield name
    execute(upgraded, f"DROP OWNED BY {name}")
    execute(server, f"DROP ROLE {name}")


def as_role(url: URL, role: str) -> URL:
    """`url`, connected to by that role."""
    return url.set(username=role, password=role)


def test_outsider_sees_what_the_granted_rows_sum_up_to(shared_rows: URL, outsider: str) -> None:
    views = ", ".join(PLAIN)
    its = as_role(shared_rows, outsider)
    execute(shared_rows, f"GRANT SELECT ON {views} TO {outsider}")
    for view in PLAIN:
        with pytest.raises(
            ProgrammingError, match=r"permission denied for table (token_usage|call_sessions|user_accounts)"
        ):
            query(its, f"TABLE {view}")
    with pytest.raises(ProgrammingError, match="permission denied for schema oblivion"):
        query(its, "TABLE oblivion.user_usage")
    execute(shared_rows, f"GRANT SELECT ON token_usage, call_sessions, user_accounts TO {outsider}")
    everything = query(shared_rows, ROWS)
    assert query(its, TOTALS) == everything
    assert run("access", "authenticated", url=shared_rows).status == 0
    assert query(its, TOTALS) == [(None, None, None)]
    for table in ("token_usage", "call_sessions", "user_accounts"):
        execute(shared_rows, f"CREATE POLICY by_hand ON {table} FOR SELECT TO {outsider} USING (user_id = 'theirs')")
    assert wrong(lambda sql: query(its, sql), REPORTS) == []
    assert query(its, TOTALS) == query(its, ROWS) != everything


def test_what_the_owner_shows_to_others(shared_rows: URL, outsider: str) -> None:
    """A function of the owner shows all; through a view of the owner PostgreSQL still asks who may read the rows."""
    execute(
        shared_rows,
        "CREATE SCHEMA shown;"
        + "".join(f"CREATE VIEW shown.{view} AS TABLE public.{view};" for view in PLAIN)
        + "CREATE FUNCTION shown.totals() RETURNS SETOF bigint LANGUAGE plpgsql SECURITY DEFINER AS $$"
        " BEGIN RETURN QUERY SELECT sum(session_count)::bigint FROM public.daily_token_usage"
        " UNION ALL SELECT sum(total_sessions)::bigint FROM public.user_token_summary; END $$;"
        f"GRANT USAGE ON SCHEMA shown TO {outsider}; GRANT SELECT ON ALL TABLES IN SCHEMA shown TO {outsider};"
        f"GRANT SELECT ON token_usage, call_sessions, user_accounts TO {outsider}",
    )
    [(usage_rows, _, calls)] = query(shared_rows, ROWS)
    its = as_role(shared_rows, outsider)
    for mode, seen in (("open", (usage_rows, usage_rows, calls)), ("authenticated", (None, None, None))):
        assert run("access", mode, url=shared_rows).status == 0
        assert query(its, TOTALS.replace("public.", "shown.")) == [seen]
        assert query(its, "SELECT shown.totals()") == [(usage_rows,), (usage_rows,)]


@pytest.mark.server
def test_prepared_statement_follows_the_mode(shared_rows: URL) -> None:
    everything = query(shared_rows, ROWS)
    with session(shared_rows, role="authenticated", **{"request.jwt.claims": signed_in("mine")}) as connection:
        for mode in ("open", "authenticated", "open", "authenticated"):
            assert run("access", mode, url=shared_rows).status == 0
            for _ in range(8):  # from the sixth on by a plan that is kept
                seen = connection.execute(TOTALS, prepare=True).fetchall()
                assert (seen == everything) == (mode == "open")
            assert wrong(connection.execute, REPORTS) == []


def test_owner_of_the_tables_who_owns_no_sums_sees_all_rows_in_reports(shared_rows: URL, outsider: str) -> None:
    for relation in ("user_accounts", "token_usage", "call_sessions", *PLAIN):
        execute(shared_rows, f"ALTER TABLE {relation} OWNER TO {outsider}")
    everything = query(shared_rows, ROWS)
    its = as_role(shared_rows, outsider)
    for mode in ("open", "authenticated"):
        assert run("access", mode, url=shared_rows).status == 0
        assert query(its, TOTALS) == everything
        assert wrong(lambda sql: query(its, sql), REPORTS) == []
    for relation in ("user_accounts", "token_usage", "call_sessions", *PLAIN):
        execute(shared_rows, f"ALTER TABLE {relation} OWNER TO CURRENT_USER")


def test_type_that_a_writer_made_is_not_the_triggers(shared_rows: URL, outsider: str) -> None:
    """They run as the owner, and an empty search_path still finds types in pg_temp."""
    execute(shared_rows, f"GRANT SELECT, INSERT, UPDATE, DELETE ON token_usage, call_sessions TO {outsider}")
    types = ("date", "timestamptz", "text", "uuid", "numeric", "int4", "int8", "bool", "interval", "jsonb")
    with session(as_role(shared_rows, outsider)) as connection:
        connection.execute(
            "CREATE FUNCTION pg_temp.took(anyelement) RETURNS boolean LANGUAGE plpgsql"
            " AS $$ BEGIN RAISE EXCEPTION 'took % as %', $1, current_user; END $$"
        )
        for name in types:
            connection.execute(f"CREATE DOMAIN pg_temp.{name} AS pg_catalog.{name} CHECK (pg_temp.took(value))")
        connection.execute("SET search_path = pg_catalog, public")
        for sql in (
            usage("mine"),
            usage("mine", rows=130),
            "UPDATE token_usage SET tokens_used = tokens_used + 1 WHERE id = (SELECT id FROM token_usage LIMIT 1)",
            "UPDATE token_usage SET tokens_used = tokens_used + 1",
            "DELETE FROM token_usage",
            "INSERT INTO call_sessions (room_id, mode) VALUES ('r', 'video')",
            "UPDATE call_sessions SET credit_cost = 2 WHERE id = (SELECT id FROM call_sessions LIMIT 1)",
            "UPDATE call_sessions SET start_time = start_time + '1 day', credit_cost = 3",
            "DELETE FROM call_sessions",
        ):
            connection.execute(sql)


# -- What each subtle part is there for: without it, this goes wrong


def after(sql: str) -> Callable[[URL], object]:
    """Whether reports are right after that, which is folded as it comes and then as a whole."""

    def scenario(url: URL) -> object:
        with session(url) as connection:
            connection.execute(ACCOUNTS)
            for statement in sql.split(";"):
                connection.execute(statement)
            before = wrong(connection.execute)
            connection.execute(FOLD)
            return not before and not wrong(connection.execute)

    return scenario


def sqlstate(connection: psycopg.Connection[tuple[Any, ...]], sql: str) -> str | None:
    """How it fails."""
    try:
        connection.execute(sql)
    except psycopg.Error as error:
        return error.sqlstate
    return None


# So many that their trigger folds, and not by chance.
MANY_DAYS: Final = "now() - n * interval '1 day' FROM generate_series(1, 1200) AS n"


def fold_from_an_old_snapshot(url: URL) -> object:
    unfolded(url, usage("demo_user"))
    with session(url) as old, session(url) as other:
        old.isolation_level = IsolationLevel.REPEATABLE_READ
        with old.transaction():
            old.execute("SELECT FROM token_usage")
            other.execute(FOLD)
            return sqlstate(
                old,
                f"""
                INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, timestamp)
                SELECT 'demo_user', 'by hand', 1, 'voice', false, {MANY_DAYS}
            """,
            )


def fold_calls_from_an_old_snapshot(url: URL) -> object:
    unfolded(url, "INSERT INTO call_sessions (room_id, mode) VALUES ('r', 'video')")
    with session(url) as old, session(url) as other:
        old.isolation_level = IsolationLevel.REPEATABLE_READ
        with old.transaction():
            old.execute("SELECT FROM call_sessions")
            other.execute(FOLD)
            return sqlstate(
                old, f"INSERT INTO call_sessions (room_id, mode, start_time) SELECT 'r', 'video', {MANY_DAYS}"
            )


def two_folds(url: URL) -> object:
    unfolded(url, usage("demo_user"), "INSERT INTO call_sessions (room_id, mode) VALUES ('r', 'video')")
    with session(url) as one, session(url, lock_timeout="100ms") as other, one.transaction():
        one.execute(FOLD)
        return sqlstate(other, FOLD)


def rebuild_from_an_old_snapshot(url: URL) -> object:
    unfolded(url, usage("demo_user"), "DELETE FROM oblivion.usage_deltas")
    rebuild = "SELECT oblivion.rebuild_rollups()"
    # A fold of what the other one has folded would fail, which is not what is tried here.
    with nothing_folded(url), session(url) as old, session(url) as other:
        old.isolation_level = IsolationLevel.REPEATABLE_READ
        with suppress(psycopg.Error), old.transaction():
            old.execute("SELECT FROM token_usage")
            other.execute(rebuild)
            old.execute(rebuild)
        return not wrong(other.execute)


def two_rebuilds(url: URL) -> object:
    unfolded(url, usage("demo_user"), "DELETE FROM oblivion.usage_deltas")
    rebuild = "SELECT oblivion.rebuild_rollups()"
    with session(url) as one, session(url, lock_timeout="100ms") as other:
        with one.transaction():
            one.execute(rebuild)
            sqlstate(other, rebuild)
        return not wrong(one.execute)


def fold_of_a_part(url: URL) -> object:
    """What tells that the newest row went may be folded before that it came: there is room before it on the page."""
    with session(url) as connection:
        unfolded(url, usage("demo_user", DAY))
        connection.execute(FOLD)
        unfolded(url, usage("developer"), usage("demo_user", NEXT_DAY))
        connection.execute("SELECT oblivion.fold_usage(1)")
        connection.execute("VACUUM oblivion.usage_deltas")
        unfolded(url, f"DELETE FROM token_usage WHERE timestamp = {NEXT_DAY}")
        while connection.execute(DELTAS).fetchone() != (0,):
            connection.execute("SELECT oblivion.fold_usage(1)")
            if wrong(connection.execute):
                return False
    return True


NEWEST_MOVES_BACK: Final = after(
    f"{usage('ann', DAY)}; {usage('ann', NEXT_DAY)};"
    " UPDATE token_usage SET timestamp = '2026-01-01' WHERE timestamp = '2026-03-02 10:00'"
)
NEWEST_GOES: Final = after(
    f"{usage('ann', DAY)}; {usage('ann', NEXT_DAY)}; DELETE FROM token_usage WHERE timestamp = {NEXT_DAY}"
)
NEWEST_CHANGES_HANDS: Final = after(
    f"{usage('ann', DAY)}; {usage('ann', NEXT_DAY)};"
    f" UPDATE token_usage SET user_id = 'ben' WHERE timestamp = {NEXT_DAY}"
)
NEWEST_GOES_LATER: Final = after(
    f"{usage('ann', DAY)}; {usage('ann', NEXT_DAY)}; {FOLD}; DELETE FROM token_usage WHERE timestamp = {NEXT_DAY}"
)
NEWEST_COMES_FIRST: Final = after(f"{usage('ann', NEXT_DAY)}; {FOLD}; {usage('ann', DAY)}")
ONLY_A_TIME_CHANGES: Final = after(f"{usage('ann', DAY)}; UPDATE token_usage SET timestamp = timestamp + '1 min'")
MANY_AT_ONCE: Final = after(usage("ann", DAY, rows=101))
MANY_CHANGE: Final = after(
    f"{usage('ann', DAY, rows=3)}; UPDATE token_usage SET tokens_used = 7, duration_seconds = NULL"
)
ONE_CHANGES: Final = after(
    f"{usage('ann', DAY)}; UPDATE token_usage SET duration_seconds = 8; UPDATE token_usage SET tokens_used = 7"
)
CALLS_OF_NO_LENGTH: Final = after(
    "INSERT INTO call_sessions (room_id, mode, start_time, end_time) VALUES ('r', 'video', '2026-01-01', 'infinity'),"
    " ('r', 'video', '2026-01-01', '2026-01-02'); DELETE FROM call_sessions WHERE end_time = 'infinity'"
)
CALLS_WITHOUT_END: Final = after(
    "INSERT INTO call_sessions (room_id, mode, start_time, end_time) VALUES ('r', 'video', '2026-01-01', 'infinity'),"
    " ('r', 'video', '2026-01-01', '2026-01-02')"
)
CALL_OF_NO_COST: Final = after(
    "INSERT INTO call_sessions (room_id, mode, start_time, credit_cost) VALUES ('r', 'video', '2026-01-01', 'NaN'),"
    " ('r', 'video', '2026-01-01', 2); DELETE FROM call_sessions WHERE credit_cost = 'NaN'"
)
CALL_CHANGES: Final = after(
    "INSERT INTO call_sessions (room_id, mode, start_time) VALUES ('r', 'video', '2026-01-01');"
    " UPDATE call_sessions SET end_time = '2026-01-02'; UPDATE call_sessions SET credit_cost = 3;"
    " UPDATE call_sessions SET start_time = '2026-01-03', mode = 'voice-only'"
)
CALLS_CHANGE: Final = after(
    "INSERT INTO call_sessions (room_id, mode, start_time)"
    " SELECT 'r', 'video', '2026-01-01' FROM generate_series(1, 3);"
    " UPDATE call_sessions SET used_turn = true; UPDATE call_sessions SET end_time = '2026-01-02'"
)
CALL_MOVES_AND_ENDS: Final = after(
    "INSERT INTO call_sessions (room_id, mode, start_time) VALUES ('r', 'video', '2026-01-01');"
    " UPDATE call_sessions SET start_time = '2026-01-03', end_time = '2026-01-04'"
)
CALL_TURNS_AND_ENDS: Final = after(
    "INSERT INTO call_sessions (room_id, mode, start_time) VALUES ('r', 'video', '2026-01-01');"
    " UPDATE call_sessions SET mode = 'voice-only', end_time = '2026-01-02'"
)
CALL_OF_NO_COST_ENDS: Final = after(
    "INSERT INTO call_sessions (room_id, mode, start_time, credit_cost) VALUES ('r', 'video', '2026-01-01', 'NaN'),"
    " ('r', 'video', '2026-01-01', 1);"
    " UPDATE call_sessions SET credit_cost = 3, end_time = '2026-01-02' WHERE credit_cost = 'NaN'"
)
ROWS_ARE_EMPTIED: Final = after(
    f"{usage('ann', DAY)}; {FOLD}; INSERT INTO call_sessions (room_id, mode) VALUES ('r', 'video');"
    " TRUNCATE token_usage; TRUNCATE call_sessions CASCADE"
)


@dataclass(frozen=True)
class Mutation:
    """A change of a function's text, and what then comes of a scenario."""

    function: str
    old: str
    new: str
    scenario: Callable[[URL], object]
    outcome: object = False


READ_COMMITTED: Final = "current_setting('transaction_isolation') <> 'read committed'"
NO_LOCK: Final = "NOT pg_try_advisory_xact_lock(hashtextextended('oblivion.{}', 0))"
MUTATIONS: Final = {
    "a fold sees old deltas": Mutation("fold_usage", READ_COMMITTED, "false", fold_from_an_old_snapshot, "40001"),
    "a fold of calls sees old deltas": Mutation(
        "fold_calls", READ_COMMITTED, "false", fold_calls_from_an_old_snapshot, "40001"
    ),
    "folds wait": Mutation("fold_usage", NO_LOCK.format("fold_usage"), "false", two_folds, "55P03"),
    "folds of calls wait": Mutation("fold_calls", NO_LOCK.format("fold_calls"), "false", two_folds, "55P03"),
    "a rebuild sees old sums": Mutation("rebuild_rollups", READ_COMMITTED, "false", rebuild_from_an_old_snapshot),
    "rebuilds take no turns": Mutation(
        "rebuild_rollups",
        "PERFORM pg_advisory_xact_lock(hashtextextended('oblivion.rebuild_rollups', 0));",
        "",
        two_rebuilds,
    ),
    "a part loses what is lost": Mutation(
        "fold_usage",
        "AND NOT EXISTS (SELECT FROM oblivion.usage_deltas AS d WHERE d.user_id = u.user_id)",
        "",
        fold_of_a_part,
    ),
    "a fold loses what is lost": Mutation(
        "fold_usage", "u.has_lost_rows OR excluded.has_lost_rows", "u.has_lost_rows", NEWEST_GOES_LATER
    ),
    "a fold takes the last for the newest": Mutation(
        "fold_usage", "greatest(u.last_usage, excluded.last_usage)", "excluded.last_usage", NEWEST_COMES_FIRST
    ),
    "the newest row stays when it goes": Mutation("note_usage", "NULL, true\n", "NULL, false\n", NEWEST_GOES),
    "the newest row stays when it moves": Mutation(
        "note_usage", "max(c.went) > max(c.came)", "max(c.went) IS NULL", NEWEST_MOVES_BACK
    ),
    "the newest row stays when it is another's": Mutation(
        "note_usage", "max(c.came) IS NULL)\n", "false)\n", NEWEST_CHANGES_HANDS
    ),
    "a time by itself is nothing": Mutation("note_usage", "OR max(c.came) <> max(c.went)", "", ONLY_A_TIME_CHANGES),
    "the hundred and first row is left out": Mutation("note_usage", "OFFSET 100)", "OFFSET 101)", MANY_AT_ONCE),
    "the hundredth row counts twice": Mutation("note_usage", "OFFSET 100)", "OFFSET 99)", MANY_AT_ONCE),
    "rows that went count": Mutation("note_usage", "        -1, r.user_id", "        1, r.user_id", MANY_CHANGE),
    "a length by itself is nothing": Mutation(
        "note_usage",
        "(sum(c.sign), sum(c.sign * c.tokens_used), sum(c.sign * c.seconds)) <> (0, 0, 0)",
        "(sum(c.sign), sum(c.sign * c.tokens_used)) <> (0, 0)",
        ONE_CHANGES,
    ),
    "a length without end stays": Mutation(
        "call_amounts",
        "isfinite(end_time)\n        THEN greatest",
        "true\n        THEN greatest",
        CALLS_OF_NO_LENGTH,
    ),
    "a length without end is one": Mutation(
        "call_amounts", "isfinite(end_time) THEN 1", "true THEN 1", CALLS_WITHOUT_END
    ),
    "NaN stays": Mutation(
        "call_amounts", "CASE WHEN credit_cost = 'NaN' THEN 0 ELSE credit_cost END", "credit_cost", CALL_OF_NO_COST
    ),
    "a cost by itself is nothing": Mutation(
        "note_calls",
        "sum(s.sign * c.credits), sum(s.sign * c.credits_unknown), sum(s.sign * c.ended_calls)",
        "0, sum(s.sign * c.credits_unknown), sum(s.sign * c.ended_calls)",
        CALL_CHANGES,
    ),
    "a day is not looked at": Mutation(
        "note_calls", "(a.start_time, a.mode", "(r.start_time, a.mode", CALL_MOVES_AND_ENDS
    ),
    "a mode is not looked at": Mutation(
        "note_calls", "(a.start_time, a.mode", "(a.start_time, r.mode", CALL_TURNS_AND_ENDS
    ),
    "a cost that was unknown is not looked at": Mutation(
        "note_calls", "AND c.credits_unknown = 0", "", CALL_OF_NO_COST_ENDS
    ),
    "one call stands for many": Mutation("note_calls", "AND NOT EXISTS (SELECT FROM added OFFSET 1)", "", CALLS_CHANGE),
    "calls that went count": Mutation("note_calls", "SELECT -1, r.start_time", "SELECT 1, r.start_time", CALLS_CHANGE),
    "usage is not emptied": Mutation(
        "clear_rollups",
        "TRUNCATE oblivion.usage_deltas, oblivion.daily_usage, oblivion.user_usage",
        "NULL",
        ROWS_ARE_EMPTIED,
    ),
    "calls are not emptied": Mutation(
        "clear_rollups", "TRUNCATE oblivion.call_deltas, oblivion.daily_calls", "NULL", ROWS_ARE_EMPTIED
    ),
}


@pytest.mark.parametrize("scenario", dict.fromkeys(mutation.scenario for mutation in MUTATIONS.values()))
@pytest.mark.few(scenario=range(0, 99, 2))
@pytest.mark.server
def test_roll_ups_hold(upgraded: URL, scenario: Callable[[URL], object]) -> None:
    assert scenario(upgraded) in (True, None)


@pytest.mark.parametrize("mutation", MUTATIONS.values(), ids=MUTATIONS)
@pytest.mark.few(mutation=range(0, 99, 4))
def test_mutant_is_caught(upgraded: URL, mutation: Mutation) -> None:
    sql = function_sql(f"oblivion.{mutation.function}")
    assert sql.count(mutation.old) == 1, f"{mutation.function}() has not one {mutation.old!r}"
    execute(upgraded, sql.replace(mutation.old, mutation.new))
    assert mutation.scenario(upgraded) == mutation.outcome
