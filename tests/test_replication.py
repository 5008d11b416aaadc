"""Copies of a database on servers of their own: what they have to be before they take over, and what they have to do.

The statements here are those of docs/operations.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from billing_load import Load
from books import check
from replication import BEHIND, RESTART, SETTINGS, caught_up, contents, do, subscribed
from sqlalchemy.exc import DBAPIError
from support import execute, libpq, query, run, temporary_home

import oblivion_schema
from oblivion_schema import metadata
from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

pytestmark = pytest.mark.full
REPORTS = [table for table in metadata.tables.values() if table.is_view]


@pytest.fixture
def home() -> Iterator[Path]:
    home = temporary_home()
    yield home
    shutil.rmtree(home, ignore_errors=True)


@contextmanager
def server(directory: Path) -> Iterator[URL]:
    started = embedded.start(directory, settings=SETTINGS, at_exit="delete")
    try:
        yield embedded.url(started)
    finally:
        started.cleanup()


def bills(url: URL) -> None:
    """A call from start to end, and a credit: as many rows of the ledger, and nothing wrong."""
    execute(url, "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('payer', 100)")
    [(call,)] = query(url, "SELECT session_id FROM start_call('ample', 'room', 'video')")
    execute(url, f"UPDATE call_sessions SET start_time = start_time - interval '61 seconds' WHERE id = '{call}'")
    assert query(url, f"SELECT status, charged FROM tick_call('{call}')") == [("ok", 4)]
    assert query(url, f"SELECT status, charged FROM end_call('{call}')") == [("ok", 0)]
    assert query(url, "SELECT status, balance FROM top_up('payer', 7, 'gift')") == [("ok", 107)]
    check(url)
    result = run("verify", url=url)
    assert result.status == 0, result.out


def test_no_trigger_fires_where_rows_are_copied(upgraded: URL) -> None:
    """A subscriber gets the rows that triggers wrote as rows."""
    fires = "SELECT tgname FROM pg_trigger WHERE tgenabled NOT IN ('O', 'D')"
    assert query(upgraded, fires) == []
    execute(upgraded, "ALTER TABLE user_accounts ENABLE ALWAYS TRIGGER write_ledger")
    assert query(upgraded, fires) == [("write_ledger",)]
    assert "trigger state write_ledger on public.user_accounts" in run("check", url=upgraded).error


def test_logical_subscriber_takes_over(home: Path) -> None:
    with server(home / "publisher") as publisher, server(home / "subscriber") as subscriber:
        oblivion_schema.upgrade(publisher)
        execute(publisher, "CREATE PUBLICATION moving FOR ALL TABLES")
        load = Load(publisher, seed=1)
        load.prepare()
        load.run(4, lambda: load.wait_for(200), lambda: subscribed(subscriber, publisher), lambda: load.wait_for(500))
        assert load.finish() == [], "nothing fails because it is published"
        deltas = query(publisher, "SELECT count(*) FROM oblivion.usage_deltas")
        query(publisher, "SELECT oblivion.fold_usage(100000), oblivion.fold_calls(100000)")
        assert deltas != query(publisher, "SELECT count(*) FROM oblivion.usage_deltas") == [(0,)]

        caught_up(publisher)
        there = contents(publisher)
        assert contents(subscriber) == there
        assert min(len(there[table]) for table in ("public.token_ledger", "public.token_usage")) > 20

        do(subscriber, "DROP SUBSCRIPTION moving")
        behind = query(subscriber, BEHIND)
        assert behind == [(table,) for table in ("oblivion.billing_incidents", "public.token_ledger") if there[table]]
        assert query(subscriber, RESTART) == [(len(behind),)]
        assert query(subscriber, BEHIND) == []
        assert contents(subscriber) == there
        bills(subscriber)


def test_subscriber_that_forgot_its_identities_is_mended(home: Path) -> None:
    """Rows that it wrote since then come before those that were copied: gaps, which a correction ends."""
    with server(home / "publisher") as publisher, server(home / "subscriber") as subscriber:
        oblivion_schema.upgrade(publisher, demo=False)
        execute(publisher, "CREATE PUBLICATION moving FOR ALL TABLES")
        execute(
            publisher,
            "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('other', 100), ('ample', 100);"
            " DELETE FROM user_accounts WHERE user_id = 'other';"
            " SELECT top_up('ample', 1, n::text) FROM generate_series(1, 5) AS n",
        )
        subscribed(subscriber, publisher)
        do(subscriber, "DROP SUBSCRIPTION moving")
        execute(subscriber, "SELECT top_up('ample', 1, 'too early')")
        with pytest.raises(DBAPIError, match="duplicate key"):
            execute(subscriber, "SELECT top_up('ample', 1, 'second')")
        wrong = query(subscriber, "SELECT user_id, drift, gaps > 0 FROM oblivion.balance_audit WHERE gaps > 0")
        assert wrong == [("ample", 0, True)]
        query(subscriber, "SELECT oblivion.trim_ledger('infinity')")
        assert query(subscriber, "SELECT drift, gaps > 0 FROM oblivion.balance_audit WHERE gaps > 0") == [(0, True)]
        assert query(subscriber, RESTART) == [(1,)]
        assert query(subscriber, "SELECT oblivion.rebuild_ledger()") == [(1,)]
        execute(subscriber, "SELECT top_up('ample', 1, 'third')")
        assert query(subscriber, "SELECT oblivion.trim_ledger('infinity') > 5") == [(True,)]
        result = run("verify", url=subscriber)
        assert result.status == 0, result.out


def test_physical_standby_takes_over(home: Path) -> None:
    with server(home / "primary") as primary:
        oblivion_schema.upgrade(primary)
        load = Load(primary, seed=3)
        load.prepare()
        program = embedded.binary("pg_basebackup")
        assert program is not None
        command = [str(program), "-D", f"{home}/standby", "-d", libpq(primary), "-c", "fast", "--no-sync"]
        load.run(4, lambda: load.wait_for(100), lambda: subprocess.run(command, check=True), lambda: load.wait_for(100))
        # Not by -R, which writes options that an older server does not know.
        (home / "standby" / "standby.signal").touch()
        with (home / "standby" / "postgresql.auto.conf").open("a", encoding="utf-8") as configuration:
            configuration.write(f"primary_conninfo = 'host={home}/primary port={primary.port} user=postgres'\n")
        owner = (home / "primary").stat()
        for lock in (home / "standby").glob(".s.PGSQL.*.lock"):
            lock.unlink()  # of the primary, whose socket is in its data folder
        for path in (home / "standby", *(home / "standby").rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        with server(home / "standby") as standby:
            load.run(4, lambda: load.wait_for(200))
            assert load.finish() == []
            caught_up(primary)
            there = contents(primary)
            assert contents(standby) == there
            assert query(standby, "SELECT pg_is_in_recovery()") == [(True,)]
            for view in REPORTS:
                rows = query(primary, f"SELECT to_jsonb(v)::text FROM {view} AS v ORDER BY 1")
                assert rows == query(standby, f"SELECT to_jsonb(v)::text FROM {view} AS v ORDER BY 1"), view
                assert rows or view.name not in {"daily_token_usage", "daily_billing_summary", "user_token_summary"}
            verified = run("verify", url=standby)
            assert verified.status == 0, verified.out
            tried = [line.startswith("skip  a call is started") for line in verified.out.splitlines()]
            assert tried.count(True) == 1
            assert run("report", f"{home}/report.html", url=standby).status == 0
            assert query(standby, "SELECT pg_promote()") == [(True,)]
            assert query(standby, BEHIND) == [], "it has the sequences, too"
            assert query(standby, RESTART) == [(0,)]
            bills(standby)
