"""`oblivion-schema burn`, `reap` and `settle`: what they do, what they say, and what they refuse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from support import execute, query, run, spawn

from oblivion_schema import upgrade

if TYPE_CHECKING:
    from sqlalchemy import URL

# Nobody can pay while this stands: the log of usage takes no row.
BREAK = "ALTER TABLE token_usage ADD CONSTRAINT broken CHECK (tokens_used IS NULL) NOT VALID"
MEND = "ALTER TABLE token_usage DROP CONSTRAINT broken"
AUDIT = "SELECT * FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0"


def calls(url: URL, count: int, *, users: int = 1, tokens: int = 100) -> None:
    """Calls of video, of 61 s, that were not seen since, of accounts `payer 1` and so on in turn."""
    execute(
        url,
        f"""
        INSERT INTO user_accounts (user_id, tokens_remaining)
        SELECT 'payer ' || n, {tokens} FROM generate_series(1, {users}) AS n;
        SELECT count(s.status)
        FROM generate_series(1, {count}) AS n, start_call('payer ' || n % {users} + 1, 'room', 'video') AS s;
        SET LOCAL session_replication_role = replica;
        UPDATE call_sessions SET start_time = now() - interval '1 hour';
        UPDATE oblivion.call_meters
        SET started_at = now() - interval '1 hour', seen_at = now() - interval '3539 seconds'
        """,
    )


def page_calls(url: URL, count: int, *, users: int = 1) -> None:
    """Calls of metered pages, of video, that began 150 s ago, each in a room that had a heartbeat just now."""
    execute(
        url,
        f"""
        INSERT INTO user_accounts (user_id) SELECT 'payer ' || n FROM generate_series(1, {users}) AS n;
        SET LOCAL ROLE anon;
        INSERT INTO call_sessions (room_id, user_id, mode)
        SELECT 'room ' || n, 'payer ' || n % {users} + 1, 'video' FROM generate_series(1, {count}) AS n;
        RESET ROLE;
        UPDATE oblivion.call_meters SET started_at = now() - interval '150 seconds', seen_at = now() - interval '150 s';
        SET LOCAL ROLE anon;
        INSERT INTO user_presence (host_id, room_id)
        SELECT 'host ' || n, 'room ' || n FROM generate_series(1, {count}) AS n;
        """,
    )


def end_unbilled(url: URL) -> None:
    """End all calls while nobody can pay."""
    execute(url, BREAK)
    execute(url, "SELECT count((end_call(id)).status) FROM call_sessions")
    execute(url, MEND)


def test_without_any_call_all_say_so(upgraded: URL) -> None:
    assert run("pages", "metered", url=upgraded).status == 0
    nothing = "0 calls: 0 tokens charged, a shortfall of 0 tokens.\n"
    for command, done in (("burn", "Burnt"), ("reap", "Reaped"), ("settle", "Settled")):
        result = run(command, url=upgraded)
        assert (result.status, result.out, result.err) == (0, f"{done} {nothing}", "")


def test_reap_ends_each_stale_call_when_it_was_last_seen(upgraded: URL) -> None:
    calls(upgraded, 3, tokens=10)
    execute(upgraded, "SELECT start_call('demo_user', 'room', 'video')")
    result = run("reap", url=upgraded)
    assert (result.status, result.out) == (0, "Reaped 3 calls: 10 tokens charged, a shortfall of 2 tokens.\n")
    ended = (
        "SELECT end_time - start_time = interval '61 seconds', count(*)::int FROM call_sessions GROUP BY 1 ORDER BY 1"
    )
    assert query(upgraded, ended) == [(True, 3), (None, 1)]
    assert run("reap", url=upgraded).out.startswith("Reaped 0 calls")


def test_time_without_a_sign_is_given(upgraded: URL) -> None:
    calls(upgraded, 1)
    for time, count in (("1h", 0), ("59min", 0), ("3600s", 0), ("1d", 0), ("58m", 1)):
        assert f"Reaped {count} call" in run("reap", "--not-seen-for", time, url=upgraded).out


def test_batches_go_on_until_nothing_is_left_or_the_limit(upgraded: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oblivion_schema.commands.maintenance._BATCH", 2)
    calls(upgraded, 9, users=2)
    assert run("reap", "--max", "3", url=upgraded).out.startswith("Reaped 3 calls: 12 tokens")
    assert run("reap", url=upgraded).out.startswith("Reaped 6 calls: 24 tokens")
    assert query(upgraded, AUDIT) == []


def test_burn_bills_calls_of_pages_up_to_their_heartbeat(upgraded: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oblivion_schema.commands.maintenance._BATCH", 2)
    assert run("pages", "metered", url=upgraded).status == 0
    execute(upgraded, "SELECT start_call('demo_user', 'room 1', 'video')")  # it ticks by itself
    page_calls(upgraded, 5, users=2)
    assert run("burn", "--max", "3", url=upgraded).out == "Burnt 3 calls: 18 tokens charged, a shortfall of 0 tokens.\n"
    assert run("burn", url=upgraded).out == "Burnt 2 calls: 12 tokens charged, a shortfall of 0 tokens.\n"
    assert run("burn", url=upgraded).out == "Burnt 0 calls: 0 tokens charged, a shortfall of 0 tokens.\n"
    assert query(upgraded, "SELECT count(*)::int FROM call_sessions WHERE end_time IS NULL") == [(6,)]
    assert query(upgraded, AUDIT) == []


def test_calls_of_pages_have_a_time_of_their_own_to_be_reaped(upgraded: URL) -> None:
    assert run("pages", "metered", url=upgraded).status == 0
    page_calls(upgraded, 1)
    execute(upgraded, "DELETE FROM user_presence")
    assert run("reap", "--not-seen-for", "1m", url=upgraded).out.startswith("Reaped 0 calls")
    assert run("reap", "--pages-not-seen-for", "3m", url=upgraded).out.startswith("Reaped 0 calls")
    assert run("reap", "--pages-not-seen-for", "2m", url=upgraded).out.startswith("Reaped 1 call: 0 tokens")


def test_settle_bills_what_could_not_be_billed(upgraded: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oblivion_schema.commands.maintenance._BATCH", 2)
    calls(upgraded, 5, users=2)
    execute(upgraded, BREAK)
    reaped = run("reap", url=upgraded)
    assert (reaped.status, reaped.out.splitlines()[0]) == (
        0,
        "Reaped 5 calls: 0 tokens charged, a shortfall of 0 tokens, 5 unsettled.",
    )
    execute(upgraded, MEND)
    assert run("settle", "--max", "1", url=upgraded).out.startswith("Settled 1 call: 4 tokens charged")
    result = run("settle", url=upgraded)
    assert (result.status, result.out) == (0, "Settled 4 calls: 16 tokens charged, a shortfall of 0 tokens.\n")
    assert query(upgraded, "SELECT FROM oblivion.billing_incidents WHERE resolved_at IS NULL") == []
    assert query(upgraded, AUDIT) == []


def test_settle_names_what_is_left_and_why(upgraded: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oblivion_schema.commands.maintenance._BATCH", 2)
    monkeypatch.setattr("oblivion_schema.commands.maintenance._SHOWN", 2)
    calls(upgraded, 5, users=2)
    end_unbilled(upgraded)
    execute(
        upgraded,
        "ALTER TABLE token_usage ADD CONSTRAINT broken CHECK (user_id <> 'payer 2') NOT VALID",
    )
    result = run("settle", url=upgraded)
    assert result.status == 1
    summary, *why, more = result.out.splitlines()
    assert re.fullmatch(r"Settled 2 calls: \d+ tokens charged, a shortfall of \d+ tokens, 3 unsettled\.", summary)
    assert more == "Unsettled: 1 call more; oblivion.billing_incidents has all of them."
    assert len(why) == 2
    for line in why:
        assert re.fullmatch(
            r'Unsettled: call [0-9a-f-]{36}: new row for relation "token_usage" violates check constraint "broken"'
            r" \(23514\), [23] times since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\+\d{4}\.",
            line,
        ), line
    execute(upgraded, MEND)
    assert run("settle", url=upgraded).status == 0


@pytest.mark.full
def test_runs_at_once_share_the_work_and_do_not_wait_for_each_other(upgraded: URL) -> None:
    """Of calls of the same accounts, which would deadlock where each run bills them in another order."""
    count = 600
    calls(upgraded, count, users=7, tokens=1000)
    for command, done, charged in (("reap", "Reaped", 4), ("settle", "Settled", 2)):
        if command == "settle":
            execute(upgraded, "UPDATE oblivion.call_meters SET settled = false, reaped = false")
            execute(upgraded, "UPDATE call_sessions SET end_time = start_time + interval '121 seconds'")
        url = upgraded.render_as_string(hide_password=False)
        runs = [spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", command) for _ in range(3)]
        printed = [process.communicate(timeout=60) for process in runs]
        found = [re.fullmatch(rf"{done} (\d+) calls?: (\d+) tokens? charged, .*[^d]\.\n", out) for out, _ in printed]
        totals = [(int(each[1]), int(each[2])) for each in found if each]
        assert len(totals) == len(runs), printed
        assert tuple(map(sum, zip(*totals, strict=True))) == (count, charged * count)
        assert [process.returncode for process in runs] == [0, 0, 0]
    assert query(upgraded, "SELECT FROM oblivion.billing_incidents") == []
    assert query(upgraded, AUDIT) == []


@pytest.mark.parametrize("command", ["burn", "reap", "settle"])
def test_database_without_the_engine_is_told_so(empty: URL, command: str) -> None:
    needs = "The database has no token engine yet: run oblivion-schema upgrade head first."
    assert needs in run(command, url=empty).error
    upgrade(empty, "003")
    assert needs in run(command, url=empty).error


@pytest.mark.parametrize("command", ["burn", "reap", "settle"])
def test_role_that_may_not_is_told_who_may(upgraded: URL, command: str) -> None:
    role = f"{upgraded.database}_worker"
    execute(upgraded, f"CREATE ROLE {role} LOGIN")
    try:
        assert run(command, url=upgraded.set(username=role)).error == (
            f"FAILED: {role} may not do that: connect as the owner of the database, or let the owner"
            " GRANT service_role to it."
        )
        execute(upgraded, f"GRANT service_role TO {role}")
        if command == "burn":
            assert run("pages", "metered", url=upgraded).status == 0
            page_calls(upgraded, 1)
        else:
            calls(upgraded, 1)
        if command == "settle":
            end_unbilled(upgraded)
        assert " 1 call: " in run(command, url=upgraded.set(username=role)).out
    finally:
        execute(upgraded, f"DROP ROLE {role}")


def test_role_that_may_not_read_the_incidents_is_told_where_they_are(upgraded: URL) -> None:
    role = f"{upgraded.database}_worker"
    execute(upgraded, f"CREATE ROLE {role} LOGIN; GRANT service_role TO {role}")
    try:
        calls(upgraded, 1)
        execute(upgraded, BREAK)
        result = run("reap", url=upgraded.set(username=role))
        assert result.status == 0
        assert re.search(
            r"call [0-9a-f-]{36}: its owner finds the reason in oblivion.billing_incidents\.\n", result.out
        )
    finally:
        execute(upgraded, f"DROP ROLE {role}")


@pytest.mark.parametrize("time", ["", "5", "m", "-5m", "5 m", "1e9s", "5w", "9999999d", "5m; DROP TABLE x", "\u0665m"])
@pytest.mark.parametrize("option", ["--not-seen-for", "--pages-not-seen-for"])
def test_time_that_is_none_is_refused(time: str, option: str) -> None:
    error = run("reap", f"{option}={time}", url="postgresql://127.0.0.1:1/never_asked").error
    assert error == f"FAILED: {option} {time}: give a number and its unit, s, m, h or d, such as 5m."


@pytest.mark.parametrize("command", ["burn", "reap", "settle"])
@pytest.mark.parametrize("number", ["", "x", "-1", "0", "1.5", "99999999999"])
def test_number_that_is_none_is_refused(command: str, number: str) -> None:
    error = run(command, f"--max={number}", url="postgresql://127.0.0.1:1/never_asked").error
    assert error == f"FAILED: --max {number}: give a number of calls above zero, such as 1000."


def test_burn_says_that_trusted_pages_bill_by_themselves(upgraded: URL) -> None:
    assert "there is nothing to burn" in run("burn", url=upgraded).out
    assert run("pages", "metered", url=upgraded).status == 0
    assert run("burn", url=upgraded).out == "Burnt 0 calls: 0 tokens charged, a shortfall of 0 tokens.\n"
