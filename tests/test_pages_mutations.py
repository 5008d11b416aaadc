"""Each guard of metered pages is there for a reason: without it, this goes wrong."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
from support import execute, function_sql
from test_pages import Site

import oblivion_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

    Scenario = Callable[[Site], object]


def fill(url: URL) -> None:
    """Make an open database whose pages are metered, with an account `ada` of 100 tokens."""
    oblivion_schema.upgrade(url, pages="metered")
    execute(url, "INSERT INTO user_accounts (user_id, email) VALUES ('ada', 'a')")


@pytest.fixture
def site(new_sort: Callable[..., URL], templates: Callable[..., URL]) -> Iterator[Site]:
    """Such a database, and its sessions."""
    with closing(Site(new_sort(copy_of=templates("superuser", fill)), "open")) as site:
        yield site


def usage(site: Site) -> list[tuple[Any, ...]]:
    """Tokens and TURN of all usage."""
    return site.ask("SELECT tokens_used, used_turn FROM token_usage ORDER BY 1, 2")


def said(site: Site, call: str) -> tuple[Any, ...]:
    """What a call's row says: its length in minutes, TURN, and tokens."""
    [row] = site.ask(
        "SELECT ceil(date_part('epoch', end_time - start_time) / 60)::integer, used_turn, credit_cost::integer"
        " FROM call_sessions WHERE id = %s",
        call,
    )
    return row


@contextmanager
def account_locked(site: Site) -> Iterator[None]:
    """Another session holds the account of `ada`."""
    other = Site(site.url, site.access)
    try:
        with other.owner.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT FROM user_accounts WHERE user_id = 'ada' FOR UPDATE")
            yield
            cursor.execute("ROLLBACK")
    finally:
        other.close()


def at_once(site: Site, *calls: str) -> None:
    """Pages of their own end and bill these calls at the same time."""

    def page(call: str) -> None:
        own = Site(site.url, site.access)
        own.end("ada", call)
        own.bill("ada", call, 2)
        own.close()

    with ThreadPoolExecutor(len(calls)) as pool:
        list(pool.map(page, calls))


def calls_that_end_at_once(site: Site) -> object:
    at_once(site, *(site.start("ada") for _ in range(12)))
    return site.balance("ada"), len(usage(site))


def two_tabs_end_a_call_at_once(site: Site) -> object:
    at_once(site, *[site.start("ada")] * 2)
    return site.balance("ada"), usage(site)


def two_tabs_end_a_call_one_after_the_other(site: Site) -> object:
    call = site.start("ada")
    site.end("ada", call)
    site.pass_minutes(5)
    site.end("ada", call, turn=True, cost=9)
    return site.balance("ada"), said(site, call), usage(site)


def clock_that_is_off(site: Site) -> object:
    """Started a day early, ended a day late."""
    call = site.start("ada", skew="-1 day")
    site.pass_minutes(2)
    site.end("ada", call, skew="1 day")
    return site.balance("ada"), said(site, call)


def clock_that_no_clock_shows(site: Site) -> object:
    call = site.start("ada", skew="200000 years")
    site.end("ada", call)
    return site.balance("ada"), usage(site)


def relay_that_was_used_last(site: Site) -> object:
    call = site.start("ada")
    site.pass_minutes(2)
    site.end("ada", call, turn=True)
    receipt = site.ask("SELECT minutes, tokens_per_minute FROM explain_call(%s)", call)
    return site.balance("ada"), said(site, call), usage(site), receipt


def relay_that_was_used_first(site: Site) -> object:
    call = site.start("ada", turn=True)
    site.heartbeat("host", "r")
    site.ask("SELECT burn_calls()")
    site.end("ada", call, turn=False)
    return site.balance("ada"), said(site, call)


def row_that_the_page_gets_back(site: Site) -> object:
    call = site.start("ada", skew="-1 day")
    rows = site.send(
        "ada",
        "UPDATE call_sessions SET end_time = '2026-03-01', used_turn = true, credit_cost = 1.2 WHERE id = %s"
        " RETURNING CASE WHEN end_time > now() - interval '1 minute' THEN 'now' ELSE end_time::date::text END,"
        " used_turn, credit_cost::text",
        call,
    )
    return rows, said(site, call)


def rate_that_changed_meanwhile(site: Site) -> object:
    call = site.start("ada")
    site.ask("INSERT INTO token_rates VALUES ('video', false, clock_timestamp(), 50)")
    site.end("ada", call)
    return site.balance("ada")


def balances_that_a_page_writes(site: Site) -> object:
    for tokens in (999_999, 0):
        site.write("ada", tokens)
    return site.balance("ada"), site.send("ada", "UPDATE user_accounts SET tokens_remaining = -1")


def account_that_a_page_renames(site: Site) -> object:
    site.send("ada", "UPDATE user_accounts SET user_id = 'eve' WHERE user_id = 'ada'")
    return site.ask("SELECT user_id FROM user_accounts WHERE email = 'a'")


def sign_ins(site: Site) -> object:
    site.ask("UPDATE user_accounts SET tokens_remaining = 40 WHERE user_id = 'ada'")
    return site.sign_in("ada"), site.sign_in("new", 5_000_000), site.sign_in("modest", 3), site.sign_in("odd", -1)


def sign_in_where_newcomers_get_less(site: Site) -> object:
    site.ask("ALTER TABLE user_accounts ALTER tokens_remaining SET DEFAULT 20")
    return site.sign_in("new")


def account_that_is_closed_and_opened_again(site: Site) -> object:
    site.ask("UPDATE user_accounts SET tokens_remaining = 40 WHERE user_id = 'ada'")
    site.ask("DELETE FROM user_accounts WHERE user_id = 'ada'")
    return site.sign_in("ada")


def account_that_a_page_deletes(site: Site) -> object:
    """And its call goes on."""
    call = site.start("ada")
    answer = site.send("ada", "DELETE FROM user_accounts WHERE user_id = 'ada'")
    site.end("ada", call)
    return answer, site.sign_in("ada")


def call_that_nobody_remembers(site: Site) -> object:
    """One that was reaped, one that was not, and one from before the switch: anybody may write their end."""
    site.ask("UPDATE user_accounts SET tokens_remaining = 100000 WHERE user_id = 'ada'")
    site.switch("trusted")
    before = site.start("ada")
    site.switch("metered")
    reaped = site.start("ada")
    site.pass_minutes(60 * 24)
    site.ask("SELECT reap_stale_calls('0', 9, '0')")
    site.start("ada")
    site.pass_minutes(60 * 24)
    found = []
    for which in (f"id = '{before}'", f"id = '{reaped}'", "end_time IS NULL"):
        site.send("ada", f"UPDATE call_sessions SET end_time = now(), used_turn = true WHERE {which}")
        found.append(100000 - site.balance("ada"))
    return found


def call_that_nobody_remembers_but_a_changed_page(site: Site) -> object:
    site.ask("UPDATE user_accounts SET tokens_remaining = 100000 WHERE user_id = 'ada'")
    calls = [site.start("ada"), site.start("ada"), site.start("ada")]
    site.pass_minutes(60 * 24)
    for function in ("tick_call", "tick_call", "set_call_turn", "end_call"):
        site.send("ada", f"SELECT {function}('{calls[2]}'{', true' * (function == 'set_call_turn')})")
    site.send("ada", f"SELECT end_call('{calls[1]}')")
    site.send("ada", "DELETE FROM call_sessions WHERE id = %s", calls[0])
    return 100000 - site.balance("ada")


def call_whose_times_the_owner_corrects(site: Site) -> object:
    """By a clock that is an hour off; the account is locked at its end, so it is settled later."""
    call = site.start("ada", skew="1 hour")
    site.pass_minutes(4)
    with account_locked(site):
        site.end("ada", call)
    site.ask("UPDATE call_sessions SET start_time = start_time - interval '30 minutes' WHERE id = %s", call)
    site.ask("UPDATE call_sessions SET end_time = end_time - interval '2 minutes' WHERE id = %s", call)
    return site.ask("SELECT status, charged FROM settle_calls()"), said(site, call)


def call_whose_clock_the_owner_corrects(site: Site) -> object:
    call = site.start("ada", skew="1 hour")
    site.pass_minutes(4)
    with account_locked(site):
        site.end("ada", call)
    site.ask(
        "UPDATE call_sessions SET start_time = start_time - interval '1 hour', end_time = end_time - interval '1 hour'"
    )
    return site.ask("SELECT status, charged FROM settle_calls()"), said(site, call)


def call_from_the_future(site: Site) -> object:
    site.switch("trusted")
    calls = [site.start("ada"), site.start("ada")]
    site.ask("UPDATE call_sessions SET created_at = 'infinity' WHERE id = %s", calls[0])
    site.ask("UPDATE call_sessions SET created_at = '2100-01-01' WHERE id = %s", calls[1])
    site.switch("metered")
    return [(len(site.end("ada", call)), site.balance("ada")) for call in calls]


def bill_that_cannot_be_undone(site: Site) -> object:
    """After the switch back; the account is locked meanwhile."""
    call = site.start("ada")
    site.end("ada", call)
    site.switch("trusted")
    with account_locked(site):
        columns = "user_id, session_id, tokens_used, mode, used_turn"
        log = f"INSERT INTO token_usage ({columns}) VALUES ('ada', '{call}', 7, 'video', false)"
        answer = site.send("ada", f"SET LOCAL lock_timeout = '50ms'; {log}")
    incidents = site.ask("SELECT action, error_code FROM oblivion.billing_incidents WHERE resolved_at IS NULL")
    return answer, said(site, call), usage(site), incidents


def call_that_the_owner_ends(site: Site) -> object:
    """By a clock that is an hour off."""
    call = site.start("ada", skew="1 hour")
    site.pass_minutes(4)
    site.ask("UPDATE call_sessions SET end_time = clock_timestamp() WHERE id = %s", call)
    return site.ask("SELECT status, charged FROM settle_calls()"), said(site, call)


def second_tab_after_the_switch_back(site: Site) -> object:
    call = site.start("ada")
    site.end("ada", call)
    site.switch("trusted")
    site.end("ada", call)
    return site.balance("ada")


def usage_that_a_page_writes(site: Site) -> object:
    call = site.start("ada")
    site.end("ada", call)
    answers = [site.log("ada", call, tokens) for tokens in (7, -1)]
    answers += [
        site.send("ada", "UPDATE token_usage SET tokens_used = 0"),
        site.send("ada", "DELETE FROM token_usage"),
        site.log("ghost", call, 2),
        site.log("ada", call, 2, "audio"),
    ]
    return answers, usage(site)


def usage_of_another_session(site: Site) -> object:
    return site.log("ada", "a call of before", 7), usage(site)


def call_that_a_page_opens_again(site: Site) -> object:
    call = site.start("ada")
    site.end("ada", call)
    site.send("ada", "UPDATE call_sessions SET end_time = NULL WHERE id = %s", call)
    site.pass_minutes(3)
    site.end("ada", call)
    return site.balance("ada"), said(site, call), site.ask("SELECT settled FROM oblivion.call_meters")


def call_that_a_page_gives_to_somebody_else(site: Site) -> object:
    call = site.start("ada")
    site.send("ada", "UPDATE call_sessions SET user_id = 'nobody', mode = 'voice-only', start_time = now()")
    site.end("ada", call)
    return site.balance("ada"), site.ask("SELECT user_id, mode FROM call_sessions")


def heartbeats(site: Site) -> object:
    """Of the room, of the host who calls, of somebody else, and one that a wrong clock wrote."""
    found = []
    calls = [site.start("ada", room="a"), site.start("ada", room="b"), site.start("ada", room="c")]
    site.ask("ALTER TABLE user_presence DISABLE TRIGGER ALL")
    site.ask("INSERT INTO user_presence (host_id, room_id, updated_at) VALUES ('x', 'c', now() + interval '1 day')")
    site.ask("ALTER TABLE user_presence ENABLE TRIGGER ALL")
    for host, room in (("else", "elsewhere"), ("host", "a"), ("ada", "elsewhere")):
        site.pass_minutes(1)
        site.heartbeat(host, room)
        burnt = site.ask("SELECT session_id::text, charged FROM burn_calls()")
        found.append(sorted((calls.index(call), charged) for call, charged in burnt))
    return found, site.balance("ada")


def call_that_was_begun_again(site: Site) -> object:
    """The first one's end was lost, and so was the answer to its start."""
    for _ in range(2):
        site.start("ada")
        site.pass_minutes(1)
    site.heartbeat("host", "r")
    return len(site.ask("SELECT burn_calls()")), site.balance("ada")


def host_who_stays_for_days(site: Site) -> object:
    site.ask("UPDATE user_accounts SET tokens_remaining = 100000 WHERE user_id = 'ada'")
    site.start("ada")
    site.pass_minutes(3 * 24 * 60)
    site.heartbeat("host", "r")
    site.ask("SELECT burn_calls()")
    return 100000 - site.balance("ada")


def burning_where_pages_are_trusted(site: Site) -> object:
    site.start("ada")
    site.heartbeat("host", "r")
    site.switch("trusted")
    return len(site.ask("SELECT burn_calls()")), site.balance("ada")


def call_that_nobody_ends(site: Site) -> object:
    call = site.start("ada", skew="1 day")
    site.pass_minutes(2)
    site.heartbeat("host", "r")
    site.pass_minutes(30)
    early = site.ask("SELECT status, charged FROM reap_stale_calls('1 minute')")
    late = site.ask("SELECT status, charged FROM reap_stale_calls('12 hours', 9, '29 minutes')")
    return early, late, site.balance("ada"), said(site, call)


def relay_of_a_call_that_nobody_ends(site: Site) -> object:
    call = site.start("ada", turn=True)
    site.heartbeat("host", "r")
    site.ask("SELECT burn_calls()")
    site.ask("SELECT reap_stale_calls('0', 9, '0')")
    return site.balance("ada"), said(site, call), usage(site)


def call_that_is_ended_after_it_was_reaped_in_its_time(site: Site) -> object:
    call = site.start("ada")
    site.heartbeat("host", "r")
    site.ask("SELECT reap_stale_calls('0', 9, '0')")
    site.end("ada", call, turn=True)
    return usage(site)


def call_that_is_ended_after_it_was_reaped(site: Site) -> object:
    call = site.start("ada")
    site.pass_minutes(2)
    site.ask("SELECT reap_stale_calls('0', 9, '0')")
    reaped = said(site, call), site.balance("ada")
    site.send("ada", "UPDATE call_sessions SET credit_cost = 7")
    site.end("ada", call, turn=True)
    return reaped, said(site, call), site.balance("ada"), usage(site)


def end_while_the_account_is_locked(site: Site) -> object:
    """By a clock a day off, with TURN; it is settled later."""
    call = site.start("ada", skew="1 day")
    site.pass_minutes(1)
    with account_locked(site):
        site.ask("SET lock_timeout = 0")
        ended = len(site.end("ada", call, turn=True))
    unsettled = site.balance("ada"), site.ask("SELECT error_code FROM oblivion.billing_incidents")
    site.pass_minutes(5)
    return ended, unsettled, site.ask("SELECT status, charged FROM settle_calls()"), said(site, call), usage(site)


def call_that_is_deleted(site: Site) -> object:
    call = site.start("ada", turn=True)
    site.send("ada", "DELETE FROM call_sessions WHERE id = %s", call)
    return site.balance("ada"), usage(site)


def calls_that_nobody_pays(site: Site) -> object:
    for user in (None, "anonymous_1", "ghost"):
        call = site.start(user)
        site.end(user, call)
        site.send(user, "UPDATE call_sessions SET end_time = now(), credit_cost = 0 WHERE id = %s", call)
    return usage(site), site.ask("SELECT user_id FROM oblivion.call_meters"), site.ask("SELECT settle_calls()")


def call_where_there_is_no_rate(site: Site) -> object:
    site.ask("DELETE FROM token_rates WHERE used_turn")
    call = site.start("ada")
    return len(site.end("ada", call)), site.balance("ada")


def end_of_another_clients_call(site: Site) -> object:
    """A service inserts a call by itself, and ends it, and writes the balance and the usage."""
    execute(
        site.url,
        "SET ROLE service_role;"
        "INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('r', 'ada', 'video');"
        "UPDATE call_sessions SET end_time = now(), credit_cost = 3;"
        "UPDATE user_accounts SET tokens_remaining = 97 WHERE user_id = 'ada';"
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        " SELECT 'ada', id, 3, 'video', false FROM call_sessions",
    )
    return site.balance("ada"), usage(site), site.ask("SELECT FROM oblivion.call_meters")


def short_end_of_a_changed_page(site: Site) -> object:
    call = site.start("ada")
    site.pass_minutes(20)
    site.send("ada", "UPDATE call_sessions SET used_turn = true WHERE id = %s", call)
    return site.send("ada", f"SELECT status, credit_cost::integer FROM end_call('{call}')"), usage(site)


def start_of_a_changed_page(site: Site) -> object:
    """Beside an old one, on the same account; and a changed page that ticks, turns and ends an old one's call."""
    old = [site.start("ada"), site.start("ada")]
    started = site.send("ada", "SELECT session_id FROM start_call('ada', 'r', 'video')")
    assert isinstance(started, list)
    [(new,)] = started
    site.pass_minutes(1)
    site.ask(
        "UPDATE call_sessions SET start_time = (SELECT started_at FROM oblivion.call_meters WHERE session_id = id)"
    )
    statuses = [
        site.send("ada", f"SELECT status, charged FROM {call}")
        for call in (
            f"tick_call('{old[0]}')", f"set_call_turn('{old[0]}', true)", f"end_call('{old[0]}')",
            f"end_call('{new}')", f"end_call('{old[0]}')",
        )
    ]  # fmt: skip
    site.end("ada", old[1])
    return statuses, site.balance("ada"), usage(site)


def call_from_before_the_switch(site: Site) -> object:
    site.switch("trusted")
    call = site.start("ada", skew="-1 day")
    site.switch("metered")
    site.pass_minutes(1)
    site.end("ada", call)
    site.bill("ada", call, 50)
    return site.balance("ada"), usage(site)


def call_from_before_the_switch_that_its_page_does_not_log(site: Site) -> object:
    site.switch("trusted")
    call = site.start("ada")
    site.switch("metered")
    site.pass_minutes(1)
    site.end("ada", call)
    return site.balance("ada"), usage(site)


def call_from_before_the_switch_back(site: Site) -> object:
    call = site.start("ada")
    site.heartbeat("host", "r")
    site.ask("SELECT burn_calls()")
    burnt = site.balance("ada")
    site.switch("trusted")
    site.end("ada", call)
    site.bill("ada", call, 7)
    return burnt, site.balance("ada"), usage(site)


def bill_without_usage_after_the_switch_back(site: Site) -> object:
    call = site.start("ada")
    site.heartbeat("host", "r")
    site.ask("SELECT reap_stale_calls('0', 9, '0')")
    site.switch("trusted")
    site.send("ada", "UPDATE call_sessions SET end_time = clock_timestamp() WHERE id = %s", call)
    site.write("ada", site.read("ada") - 7)
    return site.balance("ada"), usage(site), said(site, call)


def bill_after_the_switch_back(site: Site) -> object:
    call = site.start("ada")
    site.end("ada", call)
    site.switch("trusted")
    site.send("ada", "UPDATE call_sessions SET used_turn = true WHERE id = %s", call)
    before = site.balance("ada"), said(site, call)
    site.bill("ada", call, 7)
    return before, site.balance("ada"), usage(site), said(site, call)


def call_of_a_later_rate(site: Site) -> object:
    site.ask("INSERT INTO token_rates VALUES ('video', false, clock_timestamp() + interval '1 hour', 50)")
    site.end("ada", site.start("ada"))
    return site.balance("ada")


def relay_after_a_tick(site: Site) -> object:
    call = site.start("ada")
    site.send("ada", "SELECT tick_call(%s)", call)
    site.send("ada", "UPDATE call_sessions SET used_turn = true WHERE id = %s", call)
    site.send("ada", "SELECT end_call(%s)", call)
    return site.balance("ada"), usage(site)


def relay_that_the_balance_does_not_cover(site: Site) -> object:
    """By a clock that is off; it goes the long way."""
    call = site.start("ada", skew="-1 day")
    site.pass_minutes(20)
    site.end("ada", call, turn=True, skew="1 day")
    return site.balance("ada"), said(site, call), usage(site)


def forged_calls_from_before_the_switch(site: Site) -> object:
    """Their start, whose they are, and that they have ended."""
    site.switch("trusted")
    calls = [site.start("ada"), site.start("anonymous_1"), site.start("ada")]
    site.end("ada", calls[2])
    site.switch("metered")
    found = []
    for call, change in zip(calls, ("created_at = '2026-01-01'", "user_id = 'ada'", "end_time = NULL"), strict=True):
        site.send("ada", f"UPDATE call_sessions SET {change} WHERE id = %s", call)
        site.end("ada", call)
        found.append(site.balance("ada"))
    return found


def call_that_has_ended_when_it_is_inserted(site: Site) -> object:
    rows = site.send(
        "ada",
        "INSERT INTO call_sessions (room_id, user_id, mode, start_time, end_time, created_at, updated_at) VALUES"
        " ('r', 'ada', 'video', now() - interval '599.5 minutes', now(), '2026-01-01', '2100-01-01') RETURNING id",
    )
    assert isinstance(rows, list)
    site.log("ada", str(rows[0][0]), 2)
    return len(site.ask("SELECT settle_calls()")), site.balance("ada"), usage(site)


def usage_that_a_page_gives_to_another_call(site: Site) -> object:
    call = site.start("ada")
    site.end("ada", call)
    site.log("ada", "before", 7)
    site.send("ada", "UPDATE token_usage SET session_id = %s WHERE session_id = 'before'", call)
    return site.ask("SELECT count(*) FROM token_usage WHERE session_id = %s", call)


def mode_that_the_table_refuses(site: Site) -> object:
    return site.send("ada", "UPDATE call_sessions SET mode = 'screen' WHERE id = %s", site.start("ada"))


def balances_of_trusted_pages(site: Site) -> object:
    """The ledger knows who wrote them; a page cannot label its own."""
    site.switch("trusted")
    site.write("ada", 50)
    site.send("ada", "SELECT set_config('oblivion.reason', 'top_up  key', true)")
    site.send("ada", "SET LOCAL oblivion.reason = 'charge x'; UPDATE user_accounts SET tokens_remaining = 60")
    execute(site.url, "SET ROLE anon; UPDATE user_accounts SET tokens_remaining = 70; RESET ROLE;"
                      "UPDATE user_accounts SET tokens_remaining = 80")  # fmt: skip
    return site.ask(
        "SELECT kind, tokens, role FROM token_ledger WHERE user_id = 'ada' AND kind <> 'opening' ORDER BY id"
    )


SOUND: Final[dict[Scenario, object]] = {
    calls_that_end_at_once: (76, 12),
    two_tabs_end_a_call_at_once: (98, [(2, False)]),
    two_tabs_end_a_call_one_after_the_other: (98, (1, False, 2), [(2, False)]),
    clock_that_is_off: (94, (3, False, 6)),
    clock_that_no_clock_shows: (98, [(2, False)]),
    relay_that_was_used_last: (82, (3, True, 18), [(18, True)], [(3, 6)]),
    relay_that_was_used_first: (98, (1, False, 2)),
    row_that_the_page_gets_back: ([("2026-03-01", True, "1.2000")], (1, True, 6)),
    rate_that_changed_meanwhile: 98,
    call_of_a_later_rate: 98,
    relay_after_a_tick: (94, [(6, True)]),
    relay_that_the_balance_does_not_cover: (0, (21, True, 126), [(126, True)]),
    balances_that_a_page_writes: (100, "23514"),
    account_that_a_page_renames: [("ada",)],
    sign_ins: ([(40,)], [(100,)], [(3,)], "23514"),
    sign_in_where_newcomers_get_less: [(20,)],
    account_that_is_closed_and_opened_again: [(40,)],
    account_that_a_page_deletes: ([], [(98,)]),
    call_that_nobody_remembers: [0, 0, 4320],
    call_that_nobody_remembers_but_a_changed_page: 4320,
    call_whose_times_the_owner_corrects: ([("ok", 6)], (3, False, 6)),
    call_whose_clock_the_owner_corrects: ([("ok", 10)], (5, False, 10)),
    call_from_the_future: [(1, 98), (1, 96)],
    bill_that_cannot_be_undone: ([], (1, False, 2), [(2, False)], [("unmeter", "55P03")]),
    call_that_the_owner_ends: ([("ok", 10)], (5, False, 10)),
    second_tab_after_the_switch_back: 98,
    usage_that_a_page_writes: ([[], "23514", [], [], "23503", "23514"], [(2, False)]),
    usage_of_another_session: ([], [(7, False)]),
    call_that_a_page_opens_again: (98, (1, False, 2), [(True,)]),
    call_that_a_page_gives_to_somebody_else: (98, [("ada", "video")]),
    heartbeats: ([[], [(0, 6)], [(0, 2), (1, 8), (2, 8)]], 76),
    call_that_was_begun_again: (1, 96),
    host_who_stays_for_days: 1440,
    burning_where_pages_are_trusted: (0, 100),
    call_that_nobody_ends: ([], [("ok", 6)], 94, (3, False, 6)),
    relay_of_a_call_that_nobody_ends: (98, (1, True, 2), [(2, False)]),
    call_that_is_ended_after_it_was_reaped_in_its_time: [(6, True)],
    call_that_is_ended_after_it_was_reaped: (((0, False, 0), 100), (3, True, 18), 82, [(18, True)]),
    end_while_the_account_is_locked: (1, (100, [("55P03",)]), [("ok", 12)], (2, True, 12), [(12, True)]),
    call_that_is_deleted: (94, [(6, True)]),
    calls_that_nobody_pays: ([], [("ghost",)], []),
    call_where_there_is_no_rate: (1, 100),
    end_of_another_clients_call: (97, [(3, False)], []),
    start_of_a_changed_page: (
        [[("ok", 4)], [("ok", 0)], [("ok", 8)], [("ok", 4)], [("ended", 0)]],
        80,
        [(4, False), (4, False), (12, True)],
    ),
    short_end_of_a_changed_page: ([("short", 126)], [(126, True)]),
    call_from_before_the_switch: (96, [(4, False)]),
    call_from_before_the_switch_back: (98, 93, [(7, False)]),
    bill_without_usage_after_the_switch_back: (93, [], (1, False, 0)),
    bill_after_the_switch_back: ((98, (1, False, 2)), 93, [(7, False)], (1, False, 0)),
    forged_calls_from_before_the_switch: [98, 98, 98],
    call_that_has_ended_when_it_is_inserted: (0, 100, []),
    usage_that_a_page_gives_to_another_call: [(1,)],
    mode_that_the_table_refuses: "23514",
    call_from_before_the_switch_that_its_page_does_not_log: (96, [(4, False)]),
    balances_of_trusted_pages: [("direct", -50, "anon"), ("direct", 10, "anon"), ("direct", 10, "anon"),
                                ("direct", 10, None)],
}  # fmt: skip


@pytest.mark.parametrize("scenario", SOUND, ids=lambda scenario: scenario.__name__)
@pytest.mark.server
def test_pages_are_billed(site: Site, scenario: Scenario) -> None:
    assert scenario(site) == SOUND[scenario]


class Mutation(NamedTuple):
    """A change of a function's text, and what then comes of a scenario."""

    function: str
    old: str
    new: str
    scenario: Scenario
    outcome: object


MUTATIONS: Final = (
    Mutation(
        "meter_page_call",
        "PERFORM oblivion.meter_call(NEW.id, NEW.user_id, NEW.mode, clock_timestamp())",
        "NULL",
        call_that_nobody_ends,
        ([], [], 100, (None, False, 0)),
    ),
    Mutation("meter_page_call", "clock_timestamp()", "NEW.start_time", clock_that_is_off, (0, (720, False, 1440))),
    Mutation(
        "meter_call",
        "least(d.tokens_per_minute, t.tokens_per_minute)",
        "greatest(d.tokens_per_minute, t.tokens_per_minute)",
        relay_that_was_used_first,
        (94, (1, False, 6)),
    ),
    Mutation(
        "meter_call",
        " OR starts_with(payer, 'anonymous_')",
        "",
        calls_that_nobody_pays,
        ([], [("anonymous_1",), ("ghost",)], []),
    ),
    Mutation(
        "meter_call",
        "AND NOT r.used_turn AND r.effective_from <= started",
        "AND NOT r.used_turn",
        call_of_a_later_rate,
        50,
    ),
    Mutation(
        "guard_metered_call",
        "IF meter.by_page THEN",
        "IF false THEN",
        row_that_the_page_gets_back,
        ([("now", False, "2.0000")], (1, False, 2)),
    ),
    Mutation(
        "guard_metered_call",
        "NEW.start_time := OLD.start_time;\n  NEW.user_id := OLD.user_id;",
        "NEW.start_time := OLD.start_time;",
        call_that_a_page_gives_to_somebody_else,
        (98, [("nobody", "video")]),
    ),
    Mutation(
        "guard_metered_call",
        "PERFORM oblivion.meter_call(OLD.id, OLD.user_id, OLD.mode, least(OLD.created_at, clock_timestamp()))",
        "NULL",
        call_from_before_the_switch_that_its_page_does_not_log,
        (100, []),
    ),
    Mutation(
        "guard_metered_call",
        "least(OLD.created_at, clock_timestamp())",
        "OLD.start_time",
        call_from_before_the_switch,
        (0, [(1440, False)]),
    ),
    Mutation(
        "guard_metered_call",
        "IF is_page AND oblivion.page_billing() = 'metered' THEN",
        "IF oblivion.page_billing() = 'metered' THEN",
        end_of_another_clients_call,
        (97, [(2, False), (3, False)], []),
    ),
    Mutation(
        "guard_metered_call",
        "PERFORM oblivion.unmeter_call(OLD.id)",
        "NULL",
        bill_without_usage_after_the_switch_back,
        (91, [(2, False)], (1, False, 2)),
    ),
    Mutation(
        "unmeter_call", "IF charged > 0 THEN", "IF false THEN", call_from_before_the_switch_back, (98, 91, [(7, False)])
    ),
    Mutation(
        "guard_metered_call",
        "meter.by_page AND NEW.end_time IS DISTINCT FROM OLD.end_time\n    AND (OLD.end_time IS NULL OR meter.reaped)",
        "meter.by_page AND NEW.end_time IS DISTINCT FROM OLD.end_time",
        second_tab_after_the_switch_back,
        100,
    ),
    Mutation(
        "guard_metered_call",
        "WHEN NEW.credit_cost = OLD.credit_cost THEN 0",
        "WHEN false THEN 0",
        bill_without_usage_after_the_switch_back,
        (93, [], (1, False, 2)),
    ),
    Mutation(
        "guard_usage",
        "SET credit_cost = 0",
        "SET credit_cost = credit_cost",
        bill_after_the_switch_back,
        ((98, (1, False, 2)), 93, [(7, False)], (1, False, 2)),
    ),
    Mutation(
        "unmeter_call",
        "DELETE FROM public.token_usage AS u WHERE u.id = meter.usage_id;",
        "",
        bill_after_the_switch_back,
        ((98, (1, False, 2)), 93, [(2, False), (7, False)], (1, False, 0)),
    ),
    Mutation(
        "bill_page_call",
        "(OLD.end_time IS NULL OR meter.reaped AND NEW.end_time <> OLD.end_time AND oblivion.is_fresh(meter))",
        "true",
        two_tabs_end_a_call_one_after_the_other,
        (64, (6, True, 36), [(36, True)]),
    ),
    Mutation(
        "bill_page_call",
        "OLD.end_time IS NULL OR meter.reaped AND NEW.end_time <> OLD.end_time",
        "OLD.end_time IS NULL",
        call_that_is_ended_after_it_was_reaped,
        (((0, False, 0), 100), (0, False, 0), 100, []),
    ),
    Mutation(
        "bill_page_call",
        " AND NEW.end_time <> OLD.end_time",
        "",
        call_that_is_ended_after_it_was_reaped,
        (((0, False, 0), 100), (3, False, 6), 94, [(6, False)]),
    ),
    Mutation(
        "bill_page_call",
        "meter := oblivion.final_meter(meter, NEW.used_turn);",
        "",
        relay_that_the_balance_does_not_cover,
        (58, (21, True, 42), [(42, False)]),
    ),
    Mutation(
        "bill_page_call",
        "until + oblivion.page_lag(meter, NEW.start_time)",
        "until",
        relay_that_the_balance_does_not_cover,
        (0, (1461, True, 126), [(126, True)]),
    ),
    Mutation(
        "bill_page_call",
        "oblivion.last_moment(meter)",
        "NEW.end_time",
        relay_that_the_balance_does_not_cover,
        (0, (1461, True, 8766), [(8766, True)]),
    ),
    Mutation(
        "bill_page_call",
        "NEW.credit_cost := OLD.credit_cost;",
        "",
        two_tabs_end_a_call_one_after_the_other,
        (98, (1, False, 9), [(2, False)]),
    ),
    Mutation(
        "bill_page_call",
        "NEW.used_turn := OLD.used_turn;",
        "NULL;",
        two_tabs_end_a_call_one_after_the_other,
        (98, (1, True, 2), [(2, False)]),
    ),
    Mutation(
        "page_lag", "interval '100 years' AND", "interval '1000000 years' AND", clock_that_no_clock_shows, (100, [])
    ),
    Mutation(
        "advance_call",
        "    until := CASE WHEN meter.by_page THEN meter.seen_at ELSE call.end_time END;\n    ends",
        "    until := call.end_time;\n    ends",
        end_while_the_account_is_locked,
        (1, (100, [("55P03",)]), [("short", 100)], (1442, True, 8652), [(8652, True)]),
    ),
    Mutation(
        "advance_call",
        "meter := oblivion.final_meter(meter, call.used_turn);",
        "NULL;",
        short_end_of_a_changed_page,
        ([("ok", 42)], [(42, False)]),
    ),
    Mutation(
        "advance_call", "until + lag END", "until END", call_that_nobody_ends, ([], [("ok", 6)], 94, (-1437, False, 6))
    ),
    Mutation(
        "advance_call",
        " AND NOT meter.by_page;",
        ";",
        start_of_a_changed_page,
        (
            [[("ok", 4)], [("ok", 0)], [("ok", 0)], [("ok", 4)], [("ended", 0)]],
            88,
            [(4, False), (4, False), (4, False)],
        ),
    ),
    Mutation(
        "end_call",
        "WHEN NOT m.by_page THEN m.tokens_per_minute\n        WHEN c.used_turn",
        "WHEN true THEN m.tokens_per_minute\n        WHEN c.used_turn",
        relay_that_was_used_last,
        (82, (3, True, 18), [(18, True)], [(9, 2)]),
    ),
    Mutation(
        "end_call",
        "CASE WHEN NOT m.by_page THEN m.tokens_per_minute WHEN",
        "CASE WHEN true THEN m.tokens_per_minute WHEN",
        relay_that_was_used_last,
        (94, (3, True, 6), [(6, True)], [(1, 6)]),
    ),
    Mutation(
        "end_call",
        "m.seen_at + oblivion.page_lag(m, c.start_time)",
        "m.seen_at",
        clock_that_is_off,
        (94, (1443, False, 6)),
    ),
    Mutation(
        "update_account",
        "NEW.tokens_remaining = OLD.tokens_remaining;",
        "NULL;",
        balances_that_a_page_writes,
        (0, "23514"),
    ),
    Mutation(
        "update_account", "IF NEW.tokens_remaining >= 0 THEN", "IF true THEN", balances_that_a_page_writes, (100, [])
    ),
    Mutation("update_account", "NEW.user_id = OLD.user_id;", "", account_that_a_page_renames, [("eve",)]),
    Mutation(
        "update_account",
        "'page ' || current_user",
        "''",
        balances_of_trusted_pages,
        [("direct", -50, None), ("direct", 10, None), ("direct", 10, None), ("direct", 10, None)],
    ),
    Mutation(
        "write_ledger",
        "CASE WHEN oblivion.is_page() THEN substr(reason, 6) END",
        "substr(reason, 6)",
        balances_of_trusted_pages,
        [("direct", -50, "anon"), ("direct", 10, "anon"), ("direct", 10, "anon"), ("direct", 10, "anon")],
    ),
    Mutation(
        "guard_account",
        "IF NEW.tokens_remaining > allowed THEN",
        "IF false THEN",
        sign_ins,
        ([(40,)], [(5000000,)], [(3,)], "23514"),
    ),
    Mutation(
        "guard_account",
        "'SELECT ' || coalesce(expression, '0')",
        "'SELECT 100'",
        sign_in_where_newcomers_get_less,
        [(100,)],
    ),
    Mutation(
        "guard_account",
        "least(allowed, -l.tokens, s.tokens)",
        "allowed",
        account_that_is_closed_and_opened_again,
        [(100,)],
    ),
    Mutation(
        "guard_usage",
        "\n  THEN\n    RETURN NULL;",
        "\n  THEN\n    RETURN NEW;",
        usage_that_a_page_writes,
        ([[], "23514", [], [], "23503", "23514"], [(2, False), (7, False)]),
    ),
    Mutation(
        "guard_usage",
        "RETURN CASE TG_OP WHEN 'UPDATE' THEN OLD END",
        "RETURN coalesce(NEW, OLD)",
        usage_that_a_page_writes,
        ([[], "23514", [], [], "23503", "23514"], []),
    ),
    Mutation(
        "guard_usage",
        "AND NEW.tokens_used >= 0",
        "",
        usage_that_a_page_writes,
        ([[], [], [], [], "23503", "23514"], [(2, False)]),
    ),
    Mutation(
        "guard_usage",
        "IF NOT oblivion.unmeter_call(meter.session_id) THEN",
        "IF false THEN",
        bill_after_the_switch_back,
        ((98, (1, False, 2)), 91, [(2, False), (7, False)], (1, False, 0)),
    ),
    Mutation("sweep_calls", " AND oblivion.page_billing() = 'metered'", "", burning_where_pages_are_trusted, (1, 98)),
    Mutation(
        "sweep_calls",
        "CASE WHEN m.by_page THEN pages_not_seen_for ELSE not_seen_for END",
        "not_seen_for",
        call_that_nobody_ends,
        ([("ok", 6)], [], 94, (3, False, 6)),
    ),
    Mutation(
        "sweep_calls",
        "SET seen_at = call.heartbeat",
        "SET seen_at = m.seen_at",
        call_that_nobody_ends,
        ([], [("ok", 0)], 100, (0, False, 0)),
    ),
    Mutation(
        "page_calls",
        " WHERE updated_at <= clock_timestamp()",
        "",
        heartbeats,
        ([[(2, 100)], [(0, 0)], [(0, 0), (1, 0)]], 0),
    ),
    Mutation("page_calls", "OR h.updated_at IS NOT NULL\n", "\n", heartbeats, ([[], [(0, 6)], [(0, 2)]], 92)),
    Mutation("page_calls", "DISTINCT ON (m.user_id, c.room_id)", "", call_that_was_begun_again, (2, 90)),
    Mutation(
        "page_calls",
        "least(greatest(r.updated_at, h.updated_at), m.started_at + interval '12 hours')",
        "greatest(r.updated_at, h.updated_at)",
        host_who_stays_for_days,
        8642,
    ),
    Mutation(
        "guard_metered_call",
        "      NEW.created_at := OLD.created_at;\n",
        "",
        forged_calls_from_before_the_switch,
        [100, 100, 100],
    ),
    Mutation(
        "guard_metered_call",
        "      NEW.user_id := OLD.user_id;\n      NEW.created_at",
        "      NEW.created_at",
        forged_calls_from_before_the_switch,
        [98, 96, 96],
    ),
    Mutation(
        "guard_metered_call",
        "NEW.end_time := coalesce(NEW.end_time, OLD.end_time);\n      IF",
        "IF",
        forged_calls_from_before_the_switch,
        [98, 98, 96],
    ),
    Mutation(
        "guard_metered_call",
        "CASE WHEN NEW.mode IN ('video', 'voice-only') THEN OLD.mode ELSE NEW.mode END",
        "OLD.mode",
        mode_that_the_table_refuses,
        [],
    ),
    Mutation(
        "meter_page_call",
        "IF NEW.end_time IS NOT NULL THEN",
        "IF false THEN",
        call_that_has_ended_when_it_is_inserted,
        (1, 100, []),
    ),
    Mutation(
        "guard_usage",
        "oblivion.call_id(coalesce(NEW.session_id, OLD.session_id))",
        "oblivion.call_id(OLD.session_id)",
        usage_that_a_page_gives_to_another_call,
        [(2,)],
    ),
    Mutation(
        "guard_account",
        "ELSIF TG_OP = 'DELETE' THEN\n    RETURN NULL",
        "ELSIF TG_OP = 'DELETE' THEN\n    RETURN OLD",
        account_that_a_page_deletes,
        ([], [(100,)]),
    ),
    Mutation(
        "guard_metered_call",
        " AND OLD.created_at > clock_timestamp() - interval '12 hours'",
        "",
        call_that_nobody_remembers,
        [4320, 4320, 8640],
    ),
    Mutation("bill_page_call", " AND oblivion.is_fresh(meter)", "", call_that_nobody_remembers, [0, 4320, 8640]),
    Mutation(
        "last_moment",
        "meter.by_page AND NOT oblivion.is_fresh(meter)",
        "false",
        call_that_nobody_remembers,
        [0, 0, 8646],
    ),
    Mutation(
        "end_call",
        "AND (NOT m.by_page OR m.seen_at > clock - interval '12 hours')",
        "",
        call_that_nobody_remembers,
        [0, 0, 8646],
    ),
    Mutation(
        "tick_call",
        "m.is_plain\n      AND (NOT m.by_page OR m.seen_at > clock - interval '12 hours')\n      AND (oblivion",
        "m.is_plain\n      AND (oblivion",
        call_that_nobody_remembers_but_a_changed_page,
        11526,
    ),
    Mutation(
        "settle_deleted_call",
        "oblivion.last_moment(meter)",
        "clock_timestamp()",
        call_that_nobody_remembers_but_a_changed_page,
        5762,
    ),
    Mutation(
        "correct_meter",
        "m.by_page OR NEW.start_time IS NOT DISTINCT",
        "NEW.start_time IS NOT DISTINCT",
        call_whose_times_the_owner_corrects,
        ([("ok", 0)], (-27, False, 0)),
    ),
    Mutation(
        "correct_meter",
        "m.seen_at + (NEW.end_time - OLD.end_time) - (NEW.start_time - OLD.start_time)",
        "m.seen_at",
        call_whose_times_the_owner_corrects,
        ([("ok", 10)], (5, False, 10)),
    ),
    Mutation(
        "correct_meter",
        "OR NOT isfinite(OLD.end_time) THEN NEW.end_time",
        "OR NOT isfinite(OLD.end_time) THEN m.seen_at",
        call_that_the_owner_ends,
        ([("ok", 0)], (0, False, 0)),
    ),
    Mutation(
        "advance_call",
        "action <> 'reap' AND NOT meter.reaped OR action = 'end'",
        "true",
        relay_of_a_call_that_nobody_ends,
        (94, (1, True, 6), [(6, True)]),
    ),
    Mutation(
        "bill_call",
        "used_turn = segment.used_turn,",
        "",
        call_that_is_ended_after_it_was_reaped_in_its_time,
        [(6, False)],
    ),
    Mutation(
        "advance_call",
        "OR action IN ('tick', 'turn') AND meter.by_page AND NOT oblivion.is_fresh(meter)",
        "",
        call_that_nobody_remembers_but_a_changed_page,
        11526,
    ),
    Mutation(
        "correct_meter",
        " - (NEW.start_time - OLD.start_time)",
        "",
        call_whose_clock_the_owner_corrects,
        ([("ok", 0)], (-55, False, 0)),
    ),
    Mutation(
        "guard_metered_call",
        "least(OLD.created_at, clock_timestamp())",
        "OLD.created_at",
        call_from_the_future,
        [(1, 100), (1, 100)],
    ),
    Mutation(
        "guard_usage",
        "IF NOT oblivion.unmeter_call(meter.session_id) THEN\n        RETURN NULL;\n      END IF;",
        "PERFORM oblivion.unmeter_call(meter.session_id);",
        bill_that_cannot_be_undone,
        ("55P03", (1, False, 2), [(2, False)], []),
    ),
)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m.function}: {m.old}")
@pytest.mark.few(mutation=range(0, 99, 4))
def test_mutant_is_caught(site: Site, mutation: Mutation) -> None:
    sql = function_sql(f"oblivion.{mutation.function}")
    assert sql.count(mutation.old) == 1, f"{mutation.function} has not one {mutation.old!r}"
    sql = sql.replace(mutation.old, mutation.new).replace("CREATE VIEW", "CREATE OR REPLACE VIEW")
    execute(site.url, sql)
    outcome = mutation.scenario(site)
    assert outcome != SOUND[mutation.scenario]
    assert outcome == mutation.outcome
