"""Pages that bill by themselves, metered: whatever they send, each call is billed once, and exactly."""

from __future__ import annotations

import json
import math
import os
import random
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg2
import pytest
from books import discrepancies
from support import examples, libpq, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL, Engine

# The same histories each time; OBLIVION_TEST_EXAMPLES looks for others, as many as it says.
_EXAMPLES: Final = int(os.environ.get("OBLIVION_TEST_EXAMPLES", "0"))
HISTORIES: Final = range(_EXAMPLES or examples(24, quick=4))
STEPS: Final = 60
SWITCHING: Final = ("start", "minutes", "heartbeat", "burn", "switch", "finish", "reap")

# By how much a page's clock is off.
SKEWS: Final = ("0", "0", "3 s", "1 day", "-1 day", "-90 s", "200 years", "-1 minute")

# Tokens for each minute: without TURN, over TURN.
RATES: Final = {"video": (2, 6), "voice-only": (1, 2)}

PASS: Final = """
UPDATE oblivion.call_meters SET started_at = started_at - {span}, seen_at = seen_at - {span};
UPDATE call_sessions
SET start_time = start_time - {span}, end_time = end_time - {span}, created_at = created_at - {span};
UPDATE user_presence SET updated_at = updated_at - {span};
"""


class Site:
    """A database, its owner's session, and the sessions of its pages; minutes pass when the owner says so."""

    def __init__(self, url: URL, access: str) -> None:
        self.url, self.access = url, access
        self.owner = psycopg2.connect(libpq(url))
        self.page = psycopg2.connect(libpq(url.set(username="authenticator", password="authenticator")))
        self.owner.autocommit = self.page.autocommit = True
        self.minute = 0

    def close(self) -> None:
        self.owner.close()
        self.page.close()

    def ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of a statement of the owner."""
        with self.owner.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []

    def send(self, user: str | None, sql: str, *values: object) -> list[tuple[Any, ...]] | str:
        """Rows of a page's request, or its SQLSTATE; in the authenticated mode `user` is signed in."""
        role = "anon" if self.access == "open" else "authenticated"
        with self.page.cursor() as cursor:
            try:
                cursor.execute("BEGIN")
                cursor.execute("SELECT set_config('role', %s, true)", [role])
                claims = json.dumps({"sub": user, "role": role})
                cursor.execute("SELECT set_config('request.jwt.claims', %s, true)", [claims])
                cursor.execute(sql, values)
                rows = cursor.fetchall() if cursor.description else []
                cursor.execute("COMMIT")
            except psycopg2.Error as error:
                cursor.execute("ROLLBACK")
                return str(error.pgcode)
        return rows

    def pass_minutes(self, minutes: int) -> None:
        """Let time pass: all that happened is so much longer ago."""
        self.minute += minutes
        with self.owner.cursor() as cursor:
            cursor.execute("SET session_replication_role = replica")
            cursor.execute(PASS.format(span=f"interval '{minutes} minutes'"))
            cursor.execute("RESET session_replication_role")

    def balance(self, user: str) -> int:
        [(tokens,)] = self.ask("SELECT tokens_remaining FROM user_accounts WHERE user_id = %s", user)
        return int(tokens)

    def start(
        self, user: str | None, *, mode: str = "video", turn: bool = False, skew: str = "0", room: str = "r"
    ) -> str:
        """A page inserts a call: its id. `skew`: by how much its clock is off."""
        rows = self.send(
            user,
            "INSERT INTO call_sessions (room_id, user_id, mode, used_turn, start_time, credit_cost)"
            " VALUES (%s, %s, %s, %s, clock_timestamp() + %s::interval, 0) RETURNING id",
            *(room, user, mode, turn, skew),
        )
        assert isinstance(rows, list), rows
        return str(rows[0][0])

    def end(
        self, user: str | None, call: str, *, turn: bool = False, skew: str = "0", cost: float = 0
    ) -> list[tuple[Any, ...]] | str:
        """A page sets the end of a call: what it gets back."""
        return self.send(
            user,
            "UPDATE call_sessions SET end_time = clock_timestamp() + %s::interval, used_turn = %s, credit_cost = %s"
            " WHERE id = %s RETURNING end_time, used_turn, credit_cost",
            *(skew, turn, cost, call),
        )

    def read(self, user: str) -> int:
        """A page reads the balance."""
        rows = self.send(user, "SELECT tokens_remaining FROM user_accounts WHERE user_id = %s", user)
        assert isinstance(rows, list), rows
        return int(rows[0][0])

    def write(self, user: str, balance: int) -> None:
        """A page writes the balance."""
        self.send(user, "UPDATE user_accounts SET tokens_remaining = %s WHERE user_id = %s", balance, user)

    def log(self, user: str, call: str, tokens: int, mode: str = "video", *, turn: bool = False) -> object:
        """A page logs usage."""
        return self.send(
            user,
            "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)"
            " VALUES (%s, %s, %s, %s, %s, 60)",
            *(user, call, tokens, mode.removesuffix("-only"), turn),
        )

    def bill(self, user: str, call: str, tokens: int, mode: str = "video", *, turn: bool = False) -> None:
        """A page bills a call: its three requests."""
        self.write(user, max(0, self.read(user) - tokens))
        self.log(user, call, tokens, mode, turn=turn)

    def sign_in(self, user: str, tokens: int = 100) -> list[tuple[Any, ...]] | str:
        """A user signs in: the balance that the page gets back."""
        upsert = (
            "INSERT INTO user_accounts (user_id, email, tokens_remaining) VALUES (%s, 'e', %s) ON CONFLICT (user_id)"
            " DO UPDATE SET user_id = excluded.user_id, email = excluded.email,"
            " tokens_remaining = excluded.tokens_remaining RETURNING tokens_remaining"
        )
        return self.send(user, upsert, user, tokens)

    def heartbeat(self, host: str, room: str) -> None:
        """A host is there, in a room."""
        upsert = (
            "INSERT INTO user_presence (host_id, is_available, room_id, updated_at) VALUES (%s, false, %s, now())"
            " ON CONFLICT (host_id) DO UPDATE SET host_id = excluded.host_id, is_available = excluded.is_available,"
            " room_id = excluded.room_id, updated_at = excluded.updated_at"
        )
        assert self.send(host, upsert, host, room) == []

    def switch(self, pages: str) -> None:
        assert run("pages", pages, url=self.url).out == f"{pages}\n"

    def switch_from(self, pages: str) -> str:
        """Switch to the other way, and return it."""
        other = "metered" if pages == "trusted" else "trusted"
        self.switch(other)
        return other

    def wrong(self, engine: Engine) -> list[str]:
        """What is wrong in the books."""
        with engine.connect() as connection:
            return discrepancies(connection)


@contextmanager
def site_of(url: URL, access: str, pages: str) -> Iterator[Site]:
    assert run("access", access, url=url).status == 0
    assert run("pages", pages, url=url).status == 0
    site = Site(url, access)
    try:
        yield site
    finally:
        site.close()


@dataclass
class Call:
    """A call of a page, and what it should cost: a function of the server's time, its rates and TURN alone.

    A moment is a number of minutes; what happens within one is 10^-6 of them apart.
    """

    user: str | None
    mode: str
    room: str
    rates: tuple[int, int]
    began: float
    seen: float
    turn: bool
    billed: int = 0
    state: str = "open"  # then ended, reaped or deleted

    def price(self, until: float, rate: int) -> int:
        return max(0, math.ceil(until - self.began)) * rate


class History:
    """What pages do, drawn by chance, beside what it should come to."""

    def __init__(self, site: Site, seed: int) -> None:
        self.site, self.seed = site, seed
        self.chance = random.Random(f"{seed} {site.access}")
        self.calls: dict[str, Call] = {}
        self.presence: dict[str, tuple[str, float]] = {}
        self.rates = dict(RATES)
        self.now = 0.0
        self.balances = {f"ample {seed}": 100_000, f"scarce {seed}": 7}
        for user, tokens in self.balances.items():
            site.ask("INSERT INTO user_accounts (user_id, tokens_remaining) VALUES (%s, %s)", user, tokens)
        self.users: list[str | None] = [*self.balances] * 2
        if site.access == "open":
            self.users += [f"ghost {seed}", "anonymous_1", None]
        site.ask("DELETE FROM user_presence")
        for mode, rates in RATES.items():
            self.set_rates(mode, *rates)

    def step(self) -> None:
        names = ["start"] * 6 + ["end"] * 6 + ["bill", "minutes", "heartbeat"] * 4 + ["turn", "sign_in", "tamper"] * 2
        names += ["forge", "burn", "burn", "tick", "rate", "delete", "usage", "reap", "settle"]
        self.now += 1e-6
        getattr(self, self.chance.choice(names))()

    def discrepancies(self) -> list[str]:
        """Balances and calls that are not as they should be."""
        wrong = [
            f"{user} has {self.site.balance(user)}, not {tokens}"
            for user, tokens in self.balances.items()
            if self.site.balance(user) != tokens
        ]
        there = {
            str(row[0]): row for row in self.site.ask("SELECT id, end_time IS NULL, credit_cost FROM call_sessions")
        }
        for call, its in self.calls.items():
            is_open, cost = there[call][1:] if call in there else (None, None)
            should = {"open": (True, 0), "deleted": (None, None)}.get(
                its.state, (False, its.billed if its.user in self.balances else cost)
            )
            if (is_open, cost) != should:
                wrong.append(f"{call} is {is_open, cost}, not {its}")
        return wrong

    def any_call(self) -> tuple[str, Call] | None:
        going_on = [item for item in self.calls.items() if item[1].state == "open"]
        known = [item for item in self.calls.items() if item[1].state != "deleted"]
        found = going_on if going_on and self.chance.random() < 0.7 else known
        return self.chance.choice(found) if found else None

    def charge(self, its: Call, until: float, rate: int) -> None:
        """What is due up to a moment is taken, as far as there is any."""
        total = max(its.billed, its.price(until, rate))
        if its.user in self.balances:
            self.balances[its.user] -= min(self.balances[its.user], total - its.billed)
            its.billed = total

    def start(self) -> None:
        user, mode = self.chance.choice(self.users), self.chance.choice(list(RATES))
        room = f"{self.chance.choice('ab')} {self.seed}"
        turn = self.chance.random() < 0.2
        call = self.site.start(user, mode=mode, turn=turn, skew=self.chance.choice(SKEWS), room=room)
        self.calls[call] = Call(user, mode, room, self.rates[mode], self.now, self.now, turn)

    def end(self) -> None:
        if found := self.any_call():
            call, its = found
            turn = self.chance.random() < 0.3
            cost = self.chance.choice([0, 0.2, 99])
            answer = self.site.end(its.user, call, turn=turn, skew=self.chance.choice(SKEWS), cost=cost)
            assert isinstance(answer, list), answer
            assert [(said, float(wrote)) for _, said, wrote in answer] == [(turn, cost)]
            if its.state != "ended":
                self.charge(its, self.now, its.rates[turn])
                its.state, its.turn = "ended", turn

    def bill(self) -> None:
        if (found := self.any_call()) and found[1].user in self.balances:
            self.site.bill(str(found[1].user), found[0], self.chance.randint(0, 50), found[1].mode)

    def usage(self) -> None:
        if found := self.any_call():
            self.site.send(found[1].user, "UPDATE token_usage SET tokens_used = 0 WHERE session_id = %s", found[0])
            self.site.send(found[1].user, "DELETE FROM token_usage WHERE session_id = %s", found[0])

    def minutes(self) -> None:
        minutes = self.chance.choice([1, 1, 2, 7])
        self.site.pass_minutes(minutes)
        self.now += minutes

    def heartbeat(self) -> None:
        if (found := self.any_call()) and found[1].user is not None:
            mine = self.site.access != "open" or self.chance.random() < 0.5
            host = found[1].user if mine else f"host {self.seed}"
            room = found[1].room if self.chance.random() < 0.7 else f"c {self.seed}"
            self.site.heartbeat(host, room)
            self.presence[host] = room, self.now

    def alive(self) -> dict[str, float]:
        """When each open call of somebody who can pay was seen last; a heartbeat is for the last one in the room."""
        last = {
            (its.user, its.room): call
            for call, its in self.calls.items()
            if its.state == "open" and its.user is not None and not its.user.startswith("anonymous_")
        }
        heartbeats = {
            call: max((at for host, (place, at) in self.presence.items() if place == room or host == user), default=0)
            for (user, room), call in last.items()
        }
        return {call: max(its.seen, heartbeats.get(call, 0)) for call, its in self.calls.items() if its.state == "open"}

    def burn(self) -> None:
        burnt = self.site.ask("SELECT session_id::text FROM burn_calls()")
        should = {call for call, seen in self.alive().items() if seen > self.calls[call].seen}
        assert {call for (call,) in burnt} == should
        for call in should:
            its = self.calls[call]
            its.seen = self.alive()[call]
        for call in sorted(should, key=[call for (call,) in burnt].index):
            its = self.calls[call]
            self.charge(its, its.seen, min(its.rates))

    def reap(self) -> None:
        reaped = [str(row[0]) for row in self.site.ask("SELECT * FROM reap_stale_calls('1 s', 100, '5 minutes')")]
        should = {
            call: seen
            for call, seen in self.alive().items()
            if seen < self.now - 5 and (user := self.calls[call].user) and not user.startswith("anonymous_")
        }
        assert set(reaped) == should.keys()
        for call in reaped:
            its = self.calls[call]
            its.seen, its.state = should[call], "reaped"
            self.charge(its, its.seen, min(its.rates))

    def settle(self) -> None:
        assert self.site.ask("SELECT * FROM settle_calls()") == []

    def tick(self) -> None:
        """A page that was changed: it ticks, too."""
        if (found := self.any_call()) and found[1].state == "open":
            call, its = found
            self.site.send(its.user, "SELECT * FROM tick_call(%s)", call)
            if its.user is not None and not its.user.startswith("anonymous_"):
                its.seen = self.now
                self.charge(its, self.now, min(its.rates))

    def turn(self) -> None:
        if found := self.any_call():
            call, its = found
            self.site.send(its.user, "UPDATE call_sessions SET used_turn = NOT used_turn WHERE id = %s", call)
            its.turn ^= its.state == "open"

    def sign_in(self) -> None:
        user = self.chance.choice(list(self.balances))
        assert self.site.sign_in(user) == [(self.balances[user],)]

    def forge(self) -> None:
        self.site.send(self.chance.choice(list(self.balances)), "DELETE FROM user_accounts")
        self.site.write(self.chance.choice(list(self.balances)), self.chance.choice([0, 1, 999_999]))

    def tamper(self) -> None:
        if found := self.any_call():
            call, its = found
            change = self.chance.choice(
                [
                    "start_time = now()",
                    "user_id = NULL",
                    "mode = 'voice-only'",
                    "created_at = now()",
                    "end_time = NULL",
                    "end_time = NULL, used_turn = true",
                    "room_id = room_id",
                    "credit_cost = 7",
                ]
            )
            if its.user in self.balances:
                self.site.send(its.user, f"UPDATE call_sessions SET {change} WHERE id = %s", call)
                its.turn |= its.state == "open" and "used_turn" in change

    def set_rates(self, mode: str, *rates: int) -> None:
        """Calls that begin from now on have these."""
        for turn, rate in enumerate(rates):
            self.site.ask(
                "INSERT INTO token_rates VALUES (%s, %s, clock_timestamp(), %s)",
                mode.removesuffix("-only"),
                bool(turn),
                rate,
            )
        self.rates[mode] = rates  # type: ignore[assignment]

    def rate(self) -> None:
        self.set_rates("video", self.chance.randint(0, 3), self.chance.randint(0, 7))

    def delete(self) -> None:
        found = self.any_call()
        if found and self.chance.random() < 0.4:
            call, its = found
            # In the authenticated mode no page may.
            if self.site.send(its.user, "DELETE FROM call_sessions WHERE id = %s", call) == []:
                if its.state == "open":
                    self.charge(its, self.now, its.rates[its.turn])
                its.state = "deleted"


@pytest.mark.parametrize("access", ["open", "authenticated"])
@pytest.mark.few(access="open")
def test_call_costs_what_the_servers_time_says_whatever_pages_send(engine: Engine, upgraded: URL, access: str) -> None:
    with site_of(upgraded, access, "metered") as site:
        for seed in HISTORIES:
            history = History(site, random.randrange(10**9) if _EXAMPLES else seed)
            for number in range(STEPS):
                history.step()
                assert history.discrepancies() == [], f"{history.seed}: step {number}"
            assert site.wrong(engine) == [], history.seed
            site.ask("DELETE FROM call_sessions")
            site.ask("DELETE FROM user_accounts")


def test_call_that_is_open_while_pages_are_switched_is_billed_once(  # noqa: C901 - a case for each step
    engine: Engine, upgraded: URL
) -> None:
    with site_of(upgraded, "open", "trusted") as site:
        for seed in HISTORIES:
            chance = random.Random(seed)
            user, pages, now, price = f"ada {seed}", "trusted", 0, 0
            site.ask("INSERT INTO user_accounts (user_id, tokens_remaining) VALUES (%s, 1000)", user)
            calls: dict[str, tuple[int, bool]] = {}
            for step in [*chance.choices(SWITCHING, k=30), "drain"]:
                match step:
                    case "start":
                        turn = chance.random() < 0.3
                        calls[site.start(user, turn=turn, room=f"room {len(calls)}")] = now, turn
                    case "minutes":
                        now += (minutes := chance.randint(1, 4))
                        site.pass_minutes(minutes)
                    case "heartbeat":
                        site.heartbeat(user, "anywhere")
                    case "burn":
                        site.ask("SELECT * FROM burn_calls()")
                    case "reap":
                        site.ask("SELECT * FROM reap_stale_calls('1 s', 100, '3 minutes')")
                    case "switch":
                        pages = site.switch_from(pages)
                    case "finish" | "drain":
                        for call in list(calls)[: 1 if step == "finish" else None]:
                            began, turn = calls.pop(call)
                            tokens = (now - began + 1) * RATES["video"][turn]
                            price += tokens
                            assert len(site.end(user, call, turn=turn)) == 1
                            if pages == "metered" and chance.random() < 0.2:
                                pages = site.switch_from(pages)  # the page has not written the balance yet
                            site.bill(user, call, tokens, turn=turn)
                            logged = site.ask("SELECT tokens_used FROM token_usage WHERE session_id = %s", call)
                            assert logged == [(tokens,)], seed
            assert site.balance(user) == 1000 - price, seed
            assert site.ask("SELECT * FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0") == []
            assert site.ask("SELECT * FROM oblivion.billing_incidents") == []
            site.switch("trusted")
        assert site.wrong(engine) == []
