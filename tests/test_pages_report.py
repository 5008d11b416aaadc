"""`oblivion-schema pages`: what it reports of calls that pages billed, and how it switches who bills them."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from legacy_states import STATES
from sqlalchemy import NullPool, create_engine
from support import PROJECT, REVISIONS, dump, execute, query, run

from oblivion_schema import upgrade
from oblivion_schema.commands.pages import Raised, Report, report

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL

BY_HAND = next(state for state in STATES if state.name == "presence fixed and safe, billing")
HINT = "pages bill calls by themselves, which loses tokens when calls end together: oblivion-schema pages reports how"
NOTHING = {
    "calls": 0,
    "tokens_due": 0,
    "tokens_logged": 0,
    "calls_billed_twice": 0,
    "calls_never_billed": 0,
    "calls_of_impossible_length": 0,
    "compared_calls": 0,
    "compared_tokens_due": 0,
    "tokens_taken": 0,
    "tokens_lost": 0,
    "tokens_lost_percent": 0.0,
    "tokens_lost_at_zero": 0,
    "metered_calls": 0,
    "metered_tokens_due": 0,
    "metered_tokens_charged": 0,
    "accounts_raised": 0,
    "raises": 0,
    "tokens_raised": 0,
    "first_accounts_raised": [],
}


class Page:
    """A deployed page: each of its requests is a transaction of a visitor."""

    def __init__(self, url: URL) -> None:
        self.url = url

    def request(self, sql: str) -> None:
        execute(self.url, f"SET LOCAL ROLE anon; {sql}")

    def ended_call(
        self,
        user_id: str = "ada",
        *,
        seconds: str = "61",
        mode: str = "video",
        turn: bool = False,
        days_ago: int = 0,
    ) -> str:
        """A call that the page started and ended, by its own clock; it is not billed yet."""
        call, ended = str(uuid4()), f"timestamptz '{datetime.now(UTC) - timedelta(days=days_ago)}'"
        self.request(
            "INSERT INTO call_sessions (id, room_id, user_id, mode, used_turn, start_time, credit_cost)"
            f" VALUES ('{call}', 'lobby', '{user_id}', '{mode}', false, {ended} - interval '{seconds} seconds', 0)"
        )
        self.request(f"UPDATE call_sessions SET end_time = {ended}, used_turn = {turn} WHERE id = '{call}'")
        return call

    def read(self, user_id: str = "ada") -> int:
        [(balance,)] = query(self.url, f"SELECT tokens_remaining FROM user_accounts WHERE user_id = '{user_id}'")
        assert isinstance(balance, int)
        return balance

    def write(self, balance: int, user_id: str = "ada") -> None:
        self.request(f"UPDATE user_accounts SET tokens_remaining = {balance} WHERE user_id = '{user_id}'")

    def log(self, call: str, cost: int, user_id: str = "ada") -> None:
        self.request(
            "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
            f" VALUES ('{user_id}', '{call}', {cost}, 'video', false)"
        )

    def bill(self, call: str, cost: int, user_id: str = "ada", *, read: int | None = None) -> None:
        """Bill a call as it does; `read`: the balance that it read before other pages wrote theirs."""
        known = self.read(user_id) if read is None else read
        self.write(max(0, known - cost), user_id)
        self.log(call, cost, user_id)


@pytest.fixture
def page(upgraded: URL) -> Page:
    """A page of a database with the accounts ada and bob, opened 100 days ago with 1,000 tokens each."""
    execute(
        upgraded,
        """
        INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('ada', 1000), ('bob', 1000);
        UPDATE token_ledger SET created_at = now() - interval '100 days';
        """,
    )
    return Page(upgraded)


def reported(page: Page, *options: str) -> dict[str, Any]:
    result = run("pages", "--json", *options, url=page.url)
    assert (result.status, result.err) == (0, "")
    found: dict[str, Any] = json.loads(result.out)
    return found


def differs(page: Page, *options: str) -> dict[str, Any]:
    """The figures that are not those of a database where nothing happened."""
    found = reported(page, *options)
    return {name: found[name] for name, usual in NOTHING.items() if found[name] != usual}


def test_calls_that_are_billed_rightly_lose_nothing(page: Page) -> None:
    for _ in range(2):
        page.bill(page.ended_call(), 4)
    # What the engine charges is none of it.
    execute(page.url, "SELECT end_call(session_id) FROM start_call('ada', 'lobby', 'video')")
    assert differs(page) == {
        "calls": 2,
        "tokens_due": 8,
        "tokens_logged": 8,
        "compared_calls": 2,
        "compared_tokens_due": 8,
        "tokens_taken": 8,
    }
    lines = run("pages", url=page.url).out.splitlines()
    assert lines[0] == "Pages are trusted: they bill their calls by themselves."
    assert lines[-1].startswith("Nothing was lost. To let the database bill anyway: oblivion-schema pages metered;")


def test_deductions_that_overwrite_each_other_are_lost(page: Page) -> None:
    calls = [page.ended_call() for _ in range(3)]
    for call in calls:
        page.bill(call, 4, read=1000)
    page.bill(page.ended_call("bob"), 4, "bob")
    found = differs(page)
    assert (found["tokens_due"], found["tokens_logged"], found["tokens_taken"]) == (16, 16, 8)
    assert (found["tokens_lost"], found["tokens_lost_percent"]) == (8, 50.0)
    assert found.keys() & {"raises", "calls_billed_twice", "calls_never_billed"} == set()
    lines = run("pages", url=page.url).out.splitlines()
    assert "  tokens lost                                        8 (50.0 % of what was due)" in lines
    assert lines[-1] == "To let the database bill these calls: oblivion-schema pages metered; see docs/pages.md."


def test_old_balance_that_is_written_back_is_a_loss_and_no_gift(page: Page) -> None:
    """Both pages read 1000; the cheaper call is written last, and gives back what the other one took."""
    dear, cheap = page.ended_call(seconds="600"), page.ended_call(seconds="60")
    page.bill(dear, 20, read=1000)
    page.bill(cheap, 2, read=1000)
    assert page.read() == 998
    found = differs(page)
    assert (found["tokens_due"], found["tokens_taken"], found["tokens_lost"]) == (22, 2, 20)
    assert "raises" not in found


def test_days_and_accounts_add_up_to_the_sums(page: Page) -> None:
    for days_ago, user_id in ((2, "ada"), (1, "bob"), (1, "ada")):
        page.log(page.ended_call(user_id, days_ago=days_ago), 4, user_id)
    page.bill(page.ended_call(seconds="600"), 20, read=1000)
    page.bill(page.ended_call(seconds="60"), 2, read=1000)
    found = reported(page)
    today = datetime.now(UTC).date()
    assert found["by_day"] == [
        {"day": f"{today - timedelta(days=2)}", "due": 4, "logged": 4, "taken": 0},
        {"day": f"{today - timedelta(days=1)}", "due": 8, "logged": 8, "taken": 0},
        {"day": f"{today}", "due": 22, "logged": 22, "taken": 2},
    ]
    assert found["first_losses"] == [
        {"user_id": "ada", "due": 30, "taken": 2, "lost": 28},
        {"user_id": "bob", "due": 4, "taken": 0, "lost": 4},
    ]
    assert found["tokens_lost"] == 32


def test_one_accounts_overcharge_makes_up_for_no_other_accounts_loss(page: Page) -> None:
    twice = page.ended_call("bob")
    page.bill(twice, 4, "bob")
    page.bill(twice, 4, "bob")
    page.ended_call("ada")
    found = differs(page)
    assert (found["tokens_due"], found["tokens_taken"], found["tokens_lost"]) == (8, 8, 4)
    assert (found["tokens_logged"], found["calls_billed_twice"], found["calls_never_billed"]) == (8, 1, 1)


def test_call_that_cost_nothing_need_not_be_billed(page: Page) -> None:
    for seconds in ("0", "-90"):
        page.ended_call(seconds=seconds)
    page.request(f"UPDATE call_sessions SET end_time = 'infinity' WHERE id = '{page.ended_call()}'")
    assert differs(page) == {"calls": 3, "compared_calls": 3}


def test_call_of_a_wrong_clock_is_counted_apart(page: Page) -> None:
    page.ended_call(seconds=str(60 * 500_000))
    assert differs(page) == {"calls": 1, "compared_calls": 1, "calls_of_impossible_length": 1}
    assert "  1 call would cost more than 999,999 tokens by a wrong clock" in run("pages", url=page.url).out


@pytest.mark.parametrize(
    ("mode", "turn", "seconds", "due"),
    [
        ("voice-only", False, "1", 1),
        ("voice-only", True, "60", 2),
        ("video", False, "60.000001", 4),
        ("video", True, "61", 12),
    ],
)
def test_rate_is_that_of_mode_and_turn_for_each_started_minute(
    page: Page, mode: str, *, turn: bool, seconds: str, due: int
) -> None:
    page.ended_call(mode=mode, turn=turn, seconds=seconds)
    assert differs(page)["tokens_due"] == due


def test_rate_is_that_of_the_calls_start(page: Page) -> None:
    execute(
        page.url,
        """
        DELETE FROM token_rates WHERE mode = 'video' AND NOT used_turn;
        INSERT INTO token_rates (mode, used_turn, effective_from, tokens_per_minute)
        VALUES ('video', false, now() - interval '5 days', 100), ('video', false, now() - interval '2 days', 1000);
        """,
    )
    for days, due in ((9, 100), (4, 200), (1, 1200)):  # a call before the oldest rate has the oldest rate
        page.ended_call(seconds="60", days_ago=days)
        assert differs(page)["tokens_due"] == due


def test_only_calls_of_accounts_count_that_pages_bill(page: Page) -> None:
    execute(page.url, "INSERT INTO user_accounts (user_id) VALUES ('anonymous_7')")
    for user_id in ("nobody knows her", "anonymous_7", "anonymous_8"):
        page.ended_call(user_id)
    page.request("INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('lobby', 'ada', 'video')")
    execute(page.url, "SELECT end_call(session_id) FROM start_call('ada', 'lobby', 'video')")
    page.request(
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        " VALUES ('ada', 'no uuid', 1, 'video', false), ('ada', 'no uuid', 1, 'video', false)"
    )
    assert differs(page) == {}
    assert "0 calls ended that pages bill by themselves.\n" in run("pages", url=page.url).out


def test_window_is_the_last_days(page: Page) -> None:
    page.ended_call(days_ago=40)
    page.ended_call(days_ago=29)
    page.ended_call()
    assert [differs(page, *days)["calls"] for days in ((), ("--days", "50"), ("--days", "1"))] == [2, 3, 1]
    [(since,)] = query(page.url, "SELECT (now() - interval '50 days')::date::text")
    assert reported(page, "--days", "50")["since"].startswith(str(since))
    page.write(1010)
    execute(page.url, "UPDATE token_ledger SET created_at = created_at - interval '40 days' WHERE kind = 'direct'")
    assert ["raises" in differs(page, "--days", days) for days in ("50", "30")] == [True, False]


def test_ledger_that_starts_later_is_compared_with_the_calls_since_then(page: Page) -> None:
    early = page.ended_call(days_ago=20)
    page.log(early, 4)
    page.bill(page.ended_call(), 4)
    execute(page.url, "UPDATE token_ledger SET created_at = now() - interval '10 days' WHERE kind = 'opening'")
    found = reported(page)
    assert (found["calls"], found["tokens_due"], found["tokens_logged"]) == (2, 8, 8)
    assert (found["compared_calls"], found["compared_tokens_due"]) == (1, 4)
    assert (found["tokens_taken"], found["tokens_lost"]) == (4, 0)
    assert found["since"] < found["ledger_since"] == found["compared_since"] < found["until"]
    said = run("pages", url=page.url).out
    assert re.search(r"^  since \d{4}-\d\d-\d\d \d\d:\d\d UTC, tokens due +4$", said, flags=re.MULTILINE), said
    assert "the last three figures are of the 1 call since then." in said


def test_losses_are_not_known_before_the_ledger_begins(page: Page, tmp_path: Path) -> None:
    page.log(page.ended_call(days_ago=20), 4)
    execute(page.url, "UPDATE token_ledger SET created_at = now() - interval '10 days' WHERE kind = 'opening'")
    said = run("pages", url=page.url).out
    assert re.search(r"^  tokens really taken, and lost +not known$", said, flags=re.MULTILINE), said
    assert "all of these calls ended before" in said
    assert "Run this again when calls have ended since then" in said
    assert "tokens lost" not in said
    assert "Nothing was lost" not in said
    html = tmp_path / "report.html"
    assert run("report", str(html), url=page.url).status == 0
    assert "nothing lost" not in html.read_text(encoding="utf-8")
    assert html.read_text(encoding="utf-8").count("not known yet") == 2


def test_trimmed_ledger_knows_nothing_of_what_came_before(page: Page) -> None:
    early = page.ended_call(days_ago=20)
    page.bill(early, 4)
    execute(page.url, "UPDATE token_ledger SET created_at = now() - interval '20 days' WHERE kind = 'direct'")
    assert differs(page)["tokens_taken"] == 4
    execute(page.url, "SELECT oblivion.trim_ledger(now() - interval '10 days')")
    page.ended_call()
    found = differs(page)
    assert (found["calls"], found["compared_calls"]) == (2, 1)
    assert (found["compared_tokens_due"], found.get("tokens_taken", 0), found["tokens_lost"]) == (4, 0, 4)


def test_change_before_the_newest_carried_row_is_compared_with_nothing(page: Page) -> None:
    page.bill(page.ended_call("bob"), 4, "bob")
    execute(
        page.url,
        """
        UPDATE token_ledger SET created_at = now() - interval '25 days' WHERE kind = 'direct';
        UPDATE token_ledger SET created_at = now() - interval '20 days', kind = 'carried' WHERE user_id = 'ada';
        """,
    )
    found = differs(page)
    assert (found["compared_tokens_due"], found.get("tokens_taken", 0), found["tokens_lost"]) == (4, 0, 4)


def test_loss_of_an_account_that_came_to_zero_is_told_apart(page: Page) -> None:
    page.write(3)
    execute(page.url, "UPDATE token_ledger SET created_at = now() - interval '90 days'")
    page.bill(page.ended_call(), 4)
    page.ended_call("bob")
    found = differs(page)
    assert (found["tokens_taken"], found["tokens_lost"], found["tokens_lost_at_zero"]) == (3, 5, 1)
    assert "  1 of the tokens lost are of accounts that came to 0" in run("pages", url=page.url).out


def test_balances_that_pages_raise_are_named(page: Page) -> None:
    page.write(1010)
    page.request("INSERT INTO user_accounts (user_id) VALUES ('ada') ON CONFLICT (user_id) DO UPDATE SET email = 'a@b'")
    execute(page.url, "SET LOCAL ROLE service_role; UPDATE user_accounts SET tokens_remaining = 5000")
    execute(page.url, "UPDATE user_accounts SET tokens_remaining = 6000; SELECT top_up('ada', 1, 'order')")
    assert differs(page) == {
        "accounts_raised": 1,
        "raises": 1,
        "tokens_raised": 10,
        "first_accounts_raised": [{"user_id": "ada", "raises": 1, "tokens": 10}],
    }
    execute(
        page.url,
        "INSERT INTO user_accounts (user_id, tokens_remaining) SELECT 'user ' || n, 0 FROM generate_series(1, 7) AS n",
    )
    for n in range(1, 8):
        page.write(n, f"user {n}")
    page.write(107, "user 7")
    execute(page.url, "UPDATE token_ledger SET user_id = E'user\\x1b[2J' WHERE user_id = 'user 6'")
    said = run("pages", url=page.url).out
    named = "user 7 2 times by 107 tokens, ada 1 time by 10 tokens, user\\x1b[2J 1 time by 6 tokens"
    assert f"Pages raised the balances of 8 accounts: {named}" in said
    assert " and 3 more.\n  These are dashboards and sign-ins, which have no effect if pages are metered" in said


def test_metered_calls_of_pages_are_counted_apart(page: Page) -> None:
    assert run("pages", "metered", url=page.url).out == "metered\n"
    execute(page.url, "UPDATE user_accounts SET tokens_remaining = 1 WHERE user_id = 'bob'")
    for user_id in ("ada", "bob"):
        page.bill(page.ended_call(user_id), 4, user_id)
    page.write(5000)
    execute(page.url, "SELECT end_call(session_id) FROM start_call('ada', 'lobby', 'video')")
    found = reported(page)
    assert found["pages"] == "metered"
    # By the server's clock each of the calls took one started minute.
    assert differs(page) == {"metered_calls": 2, "metered_tokens_due": 4, "metered_tokens_charged": 3}
    lines = run("pages", url=page.url).out.splitlines()
    assert lines[0] == "Pages are metered: the database bills their calls."
    assert "The database metered 2 calls of pages: 4 tokens due, 3 charged." in lines
    assert lines[-1].startswith("To let pages bill by themselves again: oblivion-schema pages trusted;")


def test_keys_of_the_json_are_stable(page: Page) -> None:
    found = reported(page)
    assert list(found) == [
        "pages", "days", "since", "until", *list(NOTHING)[:6], "ledger_since", "compared_since", *list(NOTHING)[6:],
        "first_losses", "by_day",
    ]  # fmt: skip
    assert found["days"] == 30
    for time in ("since", "until", "ledger_since", "compared_since"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", found[time]), found[time]


def test_empty_ledger_is_no_obstacle(empty: URL) -> None:
    upgrade(empty, demo=False)
    found = reported(Page(empty))
    assert (found["ledger_since"], found["calls"]) == (None, 0)


def test_documentation_shows_what_is_printed() -> None:
    text = (PROJECT / "docs" / "pages.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"^\$ oblivion-schema pages\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    until = datetime(2026, 11, 28, 8, 37, tzinfo=UTC)
    found = Report(
        pages="trusted",
        days=30,
        since=until - timedelta(days=30),
        until=until,
        calls=215,
        tokens_due=3478,
        tokens_logged=3490,
        calls_billed_twice=5,
        calls_never_billed=8,
        calls_of_impossible_length=0,
        ledger_since=until - timedelta(days=100),
        compared_since=until - timedelta(days=30),
        compared_calls=215,
        compared_tokens_due=3478,
        tokens_taken=2160,
        tokens_lost=1318,
        tokens_lost_percent=37.9,
        tokens_lost_at_zero=0,
        metered_calls=0,
        metered_tokens_due=0,
        metered_tokens_charged=0,
        accounts_raised=2,
        raises=4,
        tokens_raised=622,
        first_accounts_raised=(Raised("bob", 1, 500), Raised("eve", 3, 122)),
        first_losses=(),
        by_day=(),
    )
    assert list(found.lines()) == shown.splitlines()


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_every_driver_gives_the_same(page: Page, driver: str) -> None:
    page.bill(page.ended_call(), 4)
    page.write(1200)
    url = page.url.set(drivername=f"postgresql+{driver}")
    with create_engine(url, poolclass=NullPool).connect() as connection:
        found = json.loads(report(connection, 30).json())
    assert {name: found[name] for name in ("tokens_taken", "raises", "first_accounts_raised")} == {
        "tokens_taken": 4,
        "raises": 1,
        "first_accounts_raised": [{"user_id": "ada", "raises": 1, "tokens": 204}],
    }


def test_report_reads_only(page: Page) -> None:
    page.bill(page.ended_call(), 4)
    before = dump(page.url)
    with create_engine(page.url, poolclass=NullPool).connect() as connection:
        assert report(connection, 30).calls == 1
        assert connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on"
        modes = connection.exec_driver_sql("SELECT DISTINCT mode FROM pg_locks WHERE pid = pg_backend_pid()").scalars()
        assert set(modes) <= {"AccessShareLock", "ExclusiveLock"}  # the second on the own transaction's number
        assert connection.exec_driver_sql("SELECT pg_current_xact_id_if_assigned()").scalar() is None
    assert dump(page.url) == before


@pytest.mark.parametrize("days", ["x", "0", "3651", "-1", "1.5", "", "9" * 30])
def test_number_of_days_that_is_none_is_refused(empty: URL, days: str) -> None:
    error = run("pages", f"--days={days}", url=empty).error
    assert f"--days {days}: give a number of days from 1 to 3650, such as 30." in error


@pytest.mark.parametrize("arguments", [["pages", "closed"], ["-x", "pages=closed", "upgrade", "head"]])
def test_error_names_both_ways(empty: URL, arguments: list[str]) -> None:
    assert "pages are trusted (they bill their calls by themselves) or metered (the database bills their calls)." in (
        run(*arguments, url=empty).error
    )


@pytest.mark.parametrize("arguments", [["pages"], ["pages", "metered"], ["pages", "trusted"], ["pages", "--json"]])
def test_database_of_no_or_an_old_revision_is_told_to_upgrade(
    empty: URL, arguments: list[str], new_database: Callable[..., URL]
) -> None:
    assert "no revision was applied. " in run(*arguments, url=empty).error
    old = new_database()
    upgrade(old, "003")
    before = dump(old)
    assert f"The database is at 003, the code at {REVISIONS[-1]}. " in run(*arguments, url=old).error
    assert dump(old) == before


def test_role_that_may_not_read_all_gets_one_line(page: Page) -> None:
    role = f"{page.url.database}_reader"
    other = page.url.set(username=role)
    page.ended_call()
    execute(page.url, f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        assert "may not read oblivion.alembic_version" in run("pages", url=other).error
        execute(
            page.url, f"GRANT USAGE ON SCHEMA oblivion TO {role}; GRANT SELECT ON oblivion.alembic_version TO {role}"
        )
        refused = f"{role} may not read all that the report is about: connect as the owner of the database."
        assert refused in run("pages", url=other).error
        # It may read the tables now, but policies could hide rows from it.
        execute(page.url, f"GRANT SELECT ON oblivion.call_meters TO {role}")
        assert refused in run("pages", url=other).error
        assert "permission denied" in run("pages", "metered", url=other).error
        execute(page.url, f"ALTER ROLE {role} BYPASSRLS")
        assert json.loads(run("pages", "--json", url=other).out)["calls"] == 1
    finally:
        execute(page.url, f"DROP OWNED BY {role}; DROP ROLE {role}")


def mode(url: URL) -> str:
    [(found,)] = query(url, "SELECT oblivion.page_billing()")
    return str(found)


def test_switch_prints_the_mode_and_keeps_the_access_mode(upgraded: URL) -> None:
    assert mode(upgraded) == "trusted"
    for pages in ("metered", "metered", "trusted"):
        result = run("pages", pages, url=upgraded)
        assert (result.status, result.out, result.err) == (0, f"{pages}\n", "")
        assert mode(upgraded) == pages
        assert run("access", url=upgraded).out == "open\n"


@pytest.mark.parametrize("access", ["open", "authenticated"])
def test_statement_that_is_printed_does_the_same(upgraded: URL, access: str) -> None:
    assert run("access", access, url=upgraded).status == 0
    states = []
    for pages in ("metered", "trusted"):
        printed = run("pages", pages, "--sql")
        assert printed.status == 0
        execute(upgraded, printed.out)
        states.append(dump(upgraded))
        execute(upgraded, run("pages", "trusted" if pages == "metered" else "metered", "--sql").out)
        assert run("pages", pages, url=upgraded).out == f"{pages}\n"
        assert dump(upgraded) == states[-1]
    assert states[0] != states[1]


def test_statement_needs_a_mode(empty: URL) -> None:
    error = run("pages", "--sql", url=empty).error
    assert "pages --sql needs a mode: say pages metered --sql or pages trusted --sql." in error


def test_upgrade_takes_the_mode(empty: URL) -> None:
    assert run("-x", "pages=metered", "upgrade", "head", url=empty).status == 0
    assert mode(empty) == "metered"
    assert run("upgrade", "head", url=empty).status == 0
    assert mode(empty) == "metered"
    assert run("-x", "pages=trusted", "upgrade", "head", url=empty).status == 0
    assert mode(empty) == "trusted"


def test_python_takes_the_mode(empty: URL) -> None:
    upgrade(empty, pages="metered")
    assert mode(empty) == "metered"
    upgrade(empty)
    assert mode(empty) == "metered"
    upgrade(empty, pages="trusted")
    assert mode(empty) == "trusted"


def test_files_take_the_mode(empty: URL, tmp_path: Path) -> None:
    assert run("-x", "pages=metered", "export", str(tmp_path)).status == 0
    for file in sorted(tmp_path.glob("*.sql")):
        sql = file.read_text(encoding="utf-8")
        assert "pages=metered" in sql.splitlines()[1]
        execute(empty, sql)
    assert mode(empty) == "metered"
    assert run("check", url=empty).status == 0


@pytest.mark.parametrize(
    "command", [["downgrade", "base"], ["upgrade", "003"], ["verify"], ["pages"], ["pages", "metered"], ["current"]]
)
def test_option_belongs_to_upgrades(upgraded: URL, command: list[str]) -> None:
    error = run("-x", "pages=metered", *command, url=upgraded).error
    assert "-x access=... and -x pages=... go with upgrade head only" in error
    assert mode(upgraded) == "trusted"


def test_inspect_says_the_modes_of_a_database_that_is_ours(page: Page) -> None:
    assert "Modes: access open, pages trusted.\n" in run("inspect", url=page.url).out
    assert run("pages", "metered", url=page.url).status == 0
    assert run("access", "authenticated", url=page.url).status == 0
    assert run("inspect", url=page.url).out.splitlines()[2:] == ["Modes: access authenticated, pages metered."]


def test_inspect_and_upgrade_tell_of_pages_that_bill(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    execute(page.url, "SELECT end_call(session_id) FROM start_call('ada', 'lobby', 'video')")
    page.log("no uuid", 1)
    assert run("upgrade", "head", url=page.url).status == 0
    assert HINT not in run("inspect", url=page.url).out + caplog.text
    page.bill(page.ended_call(), 4)
    assert f"Mind that\n  {HINT}" in run("inspect", url=page.url).out
    assert run("upgrade", "head", url=page.url).status == 0
    assert f"Mind that {HINT}" in caplog.text
    caplog.clear()
    assert run("-x", "pages=metered", "upgrade", "head", url=page.url).status == 0
    assert HINT not in run("inspect", url=page.url).out + caplog.text


def test_fresh_database_is_told_nothing_of_pages(empty: URL, caplog: pytest.LogCaptureFixture) -> None:
    before = run("inspect", url=empty).out
    assert run("upgrade", "head", url=empty).status == 0
    after = run("inspect", url=empty).out
    assert "Running upgrade" in caplog.text
    assert "pages bill" not in before + after + caplog.text
    assert "Modes" not in before


def test_database_made_by_hand_is_told_before_and_after_its_upgrade(
    empty: URL, caplog: pytest.LogCaptureFixture
) -> None:
    execute(empty, BY_HAND.script())
    assert HINT not in run("inspect", url=empty).out
    execute(
        empty,
        """
        INSERT INTO user_accounts (user_id) VALUES ('ada');
        INSERT INTO call_sessions (id, room_id, user_id, mode)
        VALUES ('00000000-0000-4000-8000-00000000aaaa', 'lobby', 'ada', 'video');
        INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)
        VALUES ('ada', '00000000-0000-4000-8000-00000000aaaa', 2, 'video', false);
        """,
    )
    said = run("inspect", url=empty).out
    assert f"Mind that\n  {HINT}" in said
    assert "Modes" not in said
    assert run("upgrade", "head", url=empty).status == 0
    assert f"Mind that {HINT}" in caplog.text


def test_role_that_may_not_look_can_inspect(page: Page) -> None:
    page.bill(page.ended_call(), 4)
    role = f"{page.url.database}_reader"
    execute(
        page.url,
        f"CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA oblivion TO {role};"
        f" GRANT SELECT ON oblivion.alembic_version, oblivion.adoption_log TO {role}",
    )
    try:
        result = run("inspect", url=page.url.set(username=role))
        assert (result.status, result.err) == (0, "")
        assert "Modes: access open, pages trusted.\n" in result.out
        assert "pages bill" not in result.out
    finally:
        execute(page.url, f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("option", [("--json",), ("--days", "3")])
def test_options_of_the_report_do_not_go_with_a_switch(upgraded: URL, option: tuple[str, ...]) -> None:
    assert "belong to the report" in run("pages", "metered", *option, url=upgraded).error
    assert run("pages", url=upgraded).out.startswith("Pages are trusted")
