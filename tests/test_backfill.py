"""What an upgrade of big tables leaves to be filled in: reports and audit are exact before, meanwhile and after."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from legacy_states import STATES
from plain_reports import EVERYTHING, REPORTS, wrong
from psycopg import IsolationLevel
from sqlalchemy import NullPool, create_engine, text
from support import PROJECT, REVISIONS, dump, execute, psql, query, request, run, signed_in, spawn, wait_until
from test_rollups import _SETTINGS, ACCOUNTS, USERS, Crowd, History, session, usage

import oblivion_schema

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from sqlalchemy import URL

FULL: Final = next(state for state in STATES if state.name == "presence fixed and safe, billing")
ALL: Final = [("calls",), ("ledger",), ("usage",)]
LEFT: Final = "SELECT name FROM oblivion.backfills ORDER BY 1"
BACKFILL: Final = "SELECT oblivion.backfill()"
AUDIT: Final = "SELECT user_id, balance, ledger, drift, gaps FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0"
# Each account begins with an opening, or with the sum of trimmed rows.
NOT_OPENED: Final = """
SELECT coalesce(a.user_id, l.user_id), l.kind
FROM user_accounts AS a
FULL JOIN (SELECT DISTINCT ON (user_id) * FROM token_ledger ORDER BY user_id, id) AS l ON l.user_id = a.user_id
WHERE l.kind IS NULL OR l.kind NOT IN ('opening', 'carried')
"""
# Few rows in many pages: what was deleted takes room until a vacuum.
MANY_PAGES: Final = """
INSERT INTO user_accounts (user_id, tokens_remaining, email)
SELECT 'gone_' || n, 1, repeat('x', 500) FROM generate_series(1, 3000) AS n;
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)
SELECT 'gone_1', repeat('x', 500), 1, 'video', false FROM generate_series(1, 3000);
INSERT INTO call_sessions (room_id, mode, user_id)
SELECT repeat('x', 500), 'video', 'gone_1' FROM generate_series(1, 3000);
DELETE FROM token_usage WHERE user_id LIKE 'gone%';
DELETE FROM call_sessions WHERE user_id LIKE 'gone%';
DELETE FROM user_accounts WHERE user_id LIKE 'gone%';
INSERT INTO user_accounts (user_id, tokens_remaining)
SELECT 'user_' || n, n % 7 FROM generate_series(1, 30) AS n;
INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds, "timestamp")
SELECT 'user_' || n % 30 + 1, 's', n % 5, 'voice', n % 2 = 0, n, '2026-03-01'::timestamptz + n * interval '1 hour'
FROM generate_series(1, 200) AS n;
INSERT INTO call_sessions (room_id, mode, user_id, start_time, end_time)
SELECT 'r', 'video', 'user_' || n % 30 + 1, '2026-03-01'::timestamptz + n * interval '1 hour', '2026-04-01'
FROM generate_series(1, 200) AS n;
"""


def by_hand(url: URL) -> None:
    execute(url, FULL.script(rows=True) + MANY_PAGES)


def upgraded_in_a_transaction(url: URL) -> None:
    with create_engine(url, poolclass=NullPool).begin() as connection:
        oblivion_schema.upgrade(connection)


@pytest.fixture
def big(new_sort: Callable[..., URL], templates: Callable[..., URL]) -> URL:
    """Tables of some pages that were made by hand."""
    return new_sort(copy_of=templates("owner", by_hand))


@pytest.fixture
def left(new_sort: Callable[..., URL], templates: Callable[..., URL]) -> URL:
    """The same after an upgrade that left everything."""
    return new_sort(copy_of=templates(templates("owner", by_hand), upgraded_in_a_transaction))


def is_filled(url: URL) -> bool:
    return not any(query(url, sql) for sql in (LEFT, EVERYTHING, AUDIT, NOT_OPENED))


def is_exact(url: URL) -> bool:
    return not any(query(url, sql) for sql in (REPORTS, AUDIT))


# -- Who fills in, and when


def test_upgrade_fills_in_after_it(big: URL, caplog: pytest.LogCaptureFixture) -> None:
    assert run("upgrade", "head", url=big).status == 0
    assert caplog.messages[-1] == "Filling in what the upgrade left, while clients go on: calls, ledger, usage."
    assert is_filled(big)
    assert query(big, "SELECT count(*) > 30 FROM token_ledger WHERE id = 0 AND kind = 'opening'") == [(True,)]
    caplog.clear()
    assert run("upgrade", "head", url=big).status == 0
    assert not [line for line in caplog.messages if line.startswith("Filling in")]


def test_small_tables_are_filled_by_the_upgrade_itself(empty: URL) -> None:
    execute(empty, FULL.script(rows=True))
    upgraded_in_a_transaction(empty)
    assert is_filled(empty)
    assert query(empty, "SELECT FROM token_ledger WHERE id = 0") == []


def test_upgrade_in_a_transaction_of_the_caller_says_what_it_leaves(big: URL, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        upgraded_in_a_transaction(big)
    assert (
        "SELECT oblivion.backfill(), after the commit, fills in what is left: calls, ledger, usage." in caplog.messages
    )
    assert query(big, LEFT) == ALL


def test_next_upgrade_fills_in_what_is_left(left: URL) -> None:
    assert query(left, LEFT) == ALL
    assert is_exact(left)
    assert not is_filled(left)
    oblivion_schema.upgrade(left)
    assert is_filled(left)


def test_one_call_fills_in_and_the_next_has_nothing_to_do(left: URL) -> None:
    [(written,)] = query(left, BACKFILL)
    assert isinstance(written, int)
    assert written > 30
    assert is_filled(left)
    before = dump(left)
    assert query(left, BACKFILL) == [(0,)]
    assert dump(left) == before


def test_rebuilt_roll_ups_are_filled(left: URL) -> None:
    execute(left, "SELECT oblivion.rebuild_rollups()")
    assert query(left, LEFT) == [("ledger",)]
    assert query(left, EVERYTHING) == []
    assert run("upgrade", "head", url=left).status == 0
    assert is_filled(left)


def test_exported_files_leave_it_to_one_call(big: URL) -> None:
    for file in sorted((PROJECT / "supabase" / "migrations").glob("*.sql")):
        psql(big, file.read_text(encoding="utf-8"))
    assert query(big, LEFT) == ALL
    assert is_exact(big)
    execute(big, BACKFILL)
    assert is_filled(big)


def test_openings_are_as_if_the_upgrade_had_written_them(left: URL) -> None:
    opened = "SELECT user_id, tokens, balance FROM token_ledger WHERE kind = 'opening' ORDER BY 1"
    accounts = query(left, "SELECT user_id, tokens_remaining, tokens_remaining FROM user_accounts ORDER BY 1")
    execute(left, "UPDATE user_accounts SET tokens_remaining = tokens_remaining + 3")
    execute(left, BACKFILL)
    assert query(left, opened) == accounts
    times = "SELECT DISTINCT created_at FROM token_ledger WHERE id = 0"
    assert query(left, times) == query(left, "SELECT max(logged_at) FROM oblivion.adoption_log")


def test_account_that_was_trimmed_before_needs_no_opening(left: URL) -> None:
    for _ in range(2):
        execute(left, "UPDATE user_accounts SET tokens_remaining = tokens_remaining + 1 WHERE user_id = 'user_1'")
    execute(left, f"SELECT oblivion.trim_ledger(clock_timestamp()); {BACKFILL}")
    assert query(left, "SELECT kind, tokens FROM token_ledger WHERE user_id = 'user_1'") == [("carried", 3)]
    assert is_filled(left)


def test_deployers_at_once_all_end_well(big: URL) -> None:
    url = big.render_as_string(hide_password=False)
    deployers = [spawn("python", "-m", "alembic", "-x", f"url={url}", "upgrade", "head") for _ in range(3)]
    ends = [(deployer.communicate(timeout=120), deployer.returncode) for deployer in deployers]
    assert [status for _, status in ends] == [0, 0, 0], ends
    assert sorted(log.count("Running upgrade") for (_, log), _ in ends) == [0, 0, len(REVISIONS)]
    assert is_filled(big)


def test_check_is_clean_while_something_is_left(left: URL) -> None:
    assert run("check", url=left).status == 0
    assert query(left, LEFT) == ALL


@pytest.mark.parametrize("revision", ["004", "003", "base"])
@pytest.mark.few(revision=("004", "base"))
def test_downgrade_of_what_is_half_filled_and_upgrade_again(left: URL, revision: str) -> None:
    assert run("downgrade", revision, url=left).status == 0
    assert run("upgrade", "head", url=left).status == 0
    assert is_filled(left)


# -- Who may not, and what is said


def test_refusal_says_what_is_left_and_what_goes_on(left: URL) -> None:
    with session(left) as other, other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('oblivion.trim_ledger', 0))")
        execute(left, f"ALTER ROLE {left.username} SET lock_timeout = '100ms'")
        refused = run("upgrade", "head", url=left)
    assert "but not filled in yet: calls, ledger, usage (canceling statement due to lock timeout)" in refused.error
    assert "upgrade head again, or SELECT oblivion.backfill() as the owner" in refused.error
    assert query(left, LEFT) == ALL, "all of it, or none"
    assert is_exact(left)
    assert run("upgrade", "head", url=left).status == 0
    assert is_filled(left)


def test_other_roles_may_not_fill_in(left: URL) -> None:
    execute(left, "GRANT USAGE ON SCHEMA oblivion TO authenticated")
    with request(left, "authenticated", signed_in("user_1")) as connection, pytest.raises(Exception, match="denied"):
        connection.exec_driver_sql(BACKFILL)


@pytest.mark.parametrize(
    ("setting", "error"),
    [
        ("default_transaction_isolation = 'repeatable read'", psycopg.errors.ActiveSqlTransaction),
        ("default_transaction_read_only = on", psycopg.errors.ReadOnlySqlTransaction),
    ],
    ids=["snapshot", "read only"],
)
@pytest.mark.few(setting=range(2))
def test_transaction_that_cannot_fill_in_is_refused(left: URL, setting: str, error: type[Exception]) -> None:
    with session(left) as connection:
        connection.execute(f"SET {setting}")
        with pytest.raises(error):
            connection.execute(BACKFILL)
    assert query(left, LEFT) == ALL


# -- The indexes of big tables are built before


def bloat(url: URL) -> None:
    execute(
        url,
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        " SELECT 'user_1', repeat('x', 1000), 1, 'video', false FROM generate_series(1, 9000);"
        " DELETE FROM token_usage WHERE length(session_id) = 1000",
    )


def test_index_of_a_big_table_is_built_before_the_upgrade(big: URL, caplog: pytest.LogCaptureFixture) -> None:
    bloat(big)
    assert run("upgrade", "head", url=big).status == 0
    build = "CREATE INDEX CONCURRENTLY idx_token_usage_session ON public.token_usage USING hash (session_id)"
    assert caplog.messages.index(build) < caplog.messages.index("Running upgrade  -> 001, Call sessions.")
    assert is_filled(big)
    assert run("check", url=big).status == 0


def test_index_is_not_built_for_an_upgrade_that_would_not_go_through(big: URL) -> None:
    bloat(big)
    execute(big, "ALTER TABLE user_accounts RENAME email TO mail")
    before = dump(big)
    assert "cannot be taken over" in run("upgrade", "head", url=big).error
    assert dump(big) == before


def test_index_of_an_interrupted_build_is_built_again(big: URL, server: URL) -> None:
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'idx_token_usage_session'::regclass"
    execute(big, "CREATE INDEX idx_token_usage_session ON token_usage USING hash (session_id)")
    execute(
        server.set(database=big.database),
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_token_usage_session'::regclass",
    )
    assert query(big, valid) == [(False,)]
    upgraded_in_a_transaction(big)
    assert query(big, valid) == [(True,)]


# -- What `inspect` tells of it


FILLS_IN: Final = "  fill in the ledger, the roll-ups of usage, the roll-ups of calls after it, while clients go on"


def test_inspection_tells_what_is_filled_in_after_the_upgrade(big: URL, empty: URL) -> None:
    assert FILLS_IN in run("inspect", url=big).out.splitlines()
    execute(empty, FULL.script(rows=True))
    assert "fill in" not in run("inspect", url=empty).out


def test_inspection_tells_what_is_built_before_the_upgrade(big: URL, server: URL) -> None:
    long = "UPDATE pg_class SET reltuples = 10000000 WHERE relname = 'token_usage'"
    execute(server.set(database=big.database), long)
    assert "indexes 24.0 s" in run("inspect", url=big).out
    bloat(big)
    said = run("inspect", url=big).out
    assert "build before it, while clients go on: idx_call_sessions_active, idx_token_usage_session" in said
    assert "the upgrade locks these tables for about 2.0 s (NULLs 2.0 s): run oblivion-schema prepare first" in said


# -- At every moment


PLANS: Final = {
    "daily_token_usage": "missing_usage",
    "daily_billing_summary": "missing_calls",
    "user_token_summary": "count_usage",
}


@pytest.mark.parametrize("report", PLANS)
@pytest.mark.few(report=PLANS)
@pytest.mark.server
def test_reports_of_a_filled_database_do_not_count_rows(upgraded: URL, report: str) -> None:
    execute(upgraded, usage("demo_user"))
    plan = "\n".join(
        str(line) for (line,) in query(upgraded, f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) TABLE {report}")
    )
    assert re.search(rf"Function Scan on {PLANS[report]}.*\(never executed\)", plan), plan
    assert not re.search(r"Scan on token_usage (?!t\b)|Scan on call_sessions", plan), plan


def test_trims_wait_for_it_and_it_waits_for_trims(left: URL) -> None:
    trim = "SELECT oblivion.trim_ledger(clock_timestamp())"
    execute(left, "UPDATE user_accounts SET tokens_remaining = tokens_remaining + 1")
    execute(left, "UPDATE user_accounts SET tokens_remaining = tokens_remaining + 1")
    with session(left) as one, session(left, lock_timeout="100ms") as other:
        for first, second in ((trim, BACKFILL), (BACKFILL, trim)):
            with one.transaction():
                one.execute(first)
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    other.execute(second)
                raise psycopg.Rollback
    assert is_exact(left)
    execute(left, f"{trim}; {BACKFILL}")
    assert is_filled(left)


def test_what_is_missing_is_of_the_moment_of_the_report(upgraded: URL) -> None:
    """A volatile function would look again, and see what was written since."""
    volatile = (
        "SELECT proname FROM pg_proc WHERE pronamespace = 'oblivion'::regnamespace AND provolatile = 'v'"
        " AND proname IN ('missing_usage', 'missing_calls', 'count_usage')"
    )
    assert query(upgraded, volatile) == []


def test_pages_are_compared_from_the_upgrade_on(left: URL) -> None:
    since = json.loads(run("pages", "--json", url=left).out)["ledger_since"]
    [(noted,)] = query(left, "SELECT noted_at FROM oblivion.backfills WHERE name = 'ledger'")
    assert datetime.fromisoformat(since) == noted


def forget(connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """The state after an upgrade that left everything, with the rows that there are."""
    connection.execute(
        "TRUNCATE oblivion.daily_usage, oblivion.user_usage, oblivion.usage_deltas, oblivion.daily_calls,"
        " oblivion.call_deltas, oblivion.backfills, token_ledger;"
        " INSERT INTO oblivion.backfills (name) VALUES ('usage'), ('calls'), ('ledger')"
    )


class Life(History):
    """What may happen meanwhile, to accounts and their ledger, too."""

    is_alone = True

    def rename(self) -> None:
        user = self.chance.choice(USERS)
        self.do(f"INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('{user}', 7) ON CONFLICT DO NOTHING")
        self.do(f"DELETE FROM token_usage WHERE user_id = '{user}'")
        self.do(f"DELETE FROM user_accounts WHERE user_id = 'new {user}'")
        self.do(f"UPDATE user_accounts SET user_id = 'new {user}' WHERE user_id = '{user}'")
        self.do(ACCOUNTS)

    def spend(self) -> None:
        change = self.chance.choice(("tokens_remaining / 2", "tokens_remaining + 5", "0"))
        self.do(f"UPDATE user_accounts SET tokens_remaining = {change} WHERE user_id = '{self.chance.choice(USERS)}'")

    def top_up(self) -> None:
        self.do(f"SELECT top_up('{self.chance.choice(USERS)}', 9, '{self.chance.randrange(3)}')")

    def retain(self) -> None:
        before = self.chance.choice(("clock_timestamp()", "now() - interval '1 hour'"))
        self.do(f"SELECT oblivion.{self.chance.choice(('trim_ledger', 'fold_charges'))}({before})")

    def step(self) -> None:
        own = [self.rename, self.spend, self.spend, self.top_up, *[self.retain] * self.is_alone]
        if self.chance.random() < 0.5:
            self.chance.choice(own)()
        else:
            super().step()


REFUSALS: Final = (
    psycopg.errors.ObjectNotInPrerequisiteState,
    psycopg.errors.FeatureNotSupported,
    psycopg.errors.RaiseException,
    psycopg.errors.InvalidParameterValue,
    psycopg.errors.NoDataFound,
)


def live(life: Life, *readers: psycopg.Connection[tuple[Any, ...]]) -> None:
    """A transaction of some steps; reports and audit are exact in it, and outside."""

    def exact() -> bool:
        return not any(wrong(each.execute, sql) for each in readers for sql in (REPORTS, AUDIT_AS_TEXT))

    connection = life.connection
    connection.isolation_level = life.chance.choice((None, IsolationLevel.REPEATABLE_READ))
    with connection.transaction() as everything:
        for _ in range(life.chance.randrange(1, 5)):
            with suppress(*REFUSALS), connection.transaction():
                life.step()
            assert not any(wrong(connection.execute, sql) for sql in (REPORTS, AUDIT_AS_TEXT)), life.done
        assert exact(), life.done
        if life.chance.random() < 0.2:
            life.done.append("ROLLBACK")
            raise psycopg.Rollback(everything)
    assert exact(), life.done


SUMMARY: Final = "SELECT s::text FROM user_token_summary AS s ORDER BY 1"
AUDIT_AS_TEXT: Final = "SELECT 'audit', a::text FROM oblivion.balance_audit AS a WHERE drift <> 0 OR gaps <> 0"


@pytest.mark.server
def test_reports_and_audit_are_exact_before_and_while_and_after_it_is_filled_in(upgraded: URL) -> None:
    with session(upgraded) as connection, session(upgraded) as other, session(upgraded) as filler:

        @_SETTINGS
        @given(st.randoms(use_true_random=True))
        def lives(chance: random.Random) -> None:
            connection.execute("TRUNCATE call_sessions, user_accounts, token_ledger CASCADE")
            connection.execute(ACCOUNTS)
            life = Life(connection, chance)
            for _ in range(5):
                live(life, other)
            life.done.append("FORGET")
            forget(connection)
            for _ in range(chance.randrange(4)):
                live(life, other)
            other.isolation_level = IsolationLevel.REPEATABLE_READ
            with other.transaction(), suppress(psycopg.Rollback):
                before = other.execute(SUMMARY).fetchall()
                with filler.transaction() as filling:
                    life.done.append("BACKFILL")
                    filler.execute(BACKFILL)
                    assert not any(filler.execute(sql).fetchall() for sql in (EVERYTHING, AUDIT, NOT_OPENED)), life.done
                    life.is_alone = False  # trims would wait for it
                    for _ in range(chance.randrange(3)):
                        live(life, other)
                    if chance.random() < 0.2:
                        life.done.append("ROLLBACK of the backfill")
                        raise psycopg.Rollback(filling)
                life.done.append("COMMIT of the backfill")
                assert other.execute(SUMMARY).fetchall() == before, life.done
                assert not wrong(other.execute, REPORTS), life.done
            other.isolation_level = None
            life.is_alone = True
            for _ in range(2):
                live(life, other)
            filler.execute(BACKFILL)
            for sql in (EVERYTHING, AUDIT, NOT_OPENED, LEFT):
                assert filler.execute(sql).fetchall() == [], life.done

        lives()


def test_many_write_while_it_is_filled_in_and_killed(left: URL) -> None:
    """Writers, trims, readers; who fills in is ended again and again."""
    people = [f"user_{number}" for number in range(1, 12)]

    def write(connection: psycopg.Connection[tuple[Any, ...]], chance: random.Random) -> None:
        user, other = chance.sample(people, 2)
        connection.execute(
            chance.choice(
                (
                    usage(user, rows=chance.choice((1, 1, 120))),
                    f"DELETE FROM token_usage WHERE id = (SELECT id FROM token_usage WHERE user_id = '{user}' LIMIT 1)",
                    f"UPDATE token_usage SET tokens_used = 3 WHERE user_id = '{user}'",
                    f"INSERT INTO call_sessions (room_id, mode, user_id) VALUES ('r', 'video', '{user}')",
                    f"UPDATE call_sessions SET end_time = now() WHERE user_id = '{user}' AND end_time IS NULL",
                    f"UPDATE user_accounts SET tokens_remaining = tokens_remaining + 2 WHERE user_id = '{user}'",
                    f"SELECT top_up('{other}', 3, '{chance.random()}')",
                    "SELECT oblivion.trim_ledger(clock_timestamp())",
                    "SELECT oblivion.fold_charges(clock_timestamp())",
                )
            )
        )

    def read(connection: psycopg.Connection[tuple[Any, ...]], _: random.Random) -> None:
        for sql in (REPORTS, AUDIT):
            assert connection.execute(sql).fetchall() == []

    def fill(connection: psycopg.Connection[tuple[Any, ...]], chance: random.Random) -> None:
        with suppress(psycopg.errors.QueryCanceled):
            connection.execute(f"SET statement_timeout = {chance.randrange(1, 60)}")
            connection.execute(BACKFILL)

    Crowd(left).run(3, write, write, write, read, read, fill)
    execute(left, BACKFILL)
    assert is_filled(left)


def test_ended_session_leaves_nothing_half_filled(left: URL) -> None:
    with session(left) as holder, holder.transaction():
        holder.execute("SELECT pg_advisory_xact_lock(hashtextextended('oblivion.trim_ledger', 0))")
        url = left.render_as_string(hide_password=False)
        filling = spawn("python", "-m", "alembic", "-x", f"url={url}", "upgrade", "head")
        waits = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'"
        wait_until(lambda: query(left, waits))
        execute(left, f"SELECT pg_terminate_backend(pid) FROM ({waits}) AS w")
        said = "".join(filling.communicate(timeout=60))
    assert "FAILED" in said
    assert "Traceback" not in said
    assert query(left, LEFT) == ALL
    assert query(left, "TABLE oblivion.user_usage") == []
    assert is_exact(left)
    assert run("upgrade", "head", url=left).status == 0
    assert is_filled(left)


@pytest.mark.parametrize("role", ["anon", "authenticated", "service_role"])
def test_pages_read_the_same_reports_before_and_while_something_is_left(upgraded: URL, role: str) -> None:
    execute(
        upgraded,
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        " VALUES ('demo_user', 's', 3, 'video', false);"
        " INSERT INTO call_sessions (room_id, mode) VALUES ('r', 'video')",
    )

    def reports() -> list[list[object]]:
        with request(upgraded, role) as connection:
            return [
                [tuple(row) for row in connection.execute(text(f"SELECT * FROM {view}")).all()]
                for view in ("daily_token_usage", "daily_billing_summary", "user_token_summary")
            ]

    before = reports()
    assert before[0]
    assert before[1]
    execute(upgraded, "TRUNCATE oblivion.daily_usage, oblivion.user_usage, oblivion.daily_calls")
    execute(upgraded, "TRUNCATE oblivion.usage_deltas, oblivion.call_deltas")
    execute(upgraded, "INSERT INTO oblivion.backfills (name) VALUES ('usage'), ('calls')")
    assert reports() == before
