"""What the token engine should do, in plain Python: balances, their ledger, and calls with their segments."""

from __future__ import annotations

import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

BAD = "22023"
TOO_MUCH = "22003"
NO_ACCOUNT = "23503"
CONFLICT = "23505"
NOT_NOW = "55000"
INJECTED = "TE001"

LARGEST = 2**31 - 1
MOST_OF_A_CALL = 999_999
UNPAID = (None, "anonymous_1", "ghost")
OPENED = {"scarce": 3, "middling": 100, "ample": 100_000, "leaver": 50}
USERS = (*UNPAID, *OPENED)

Failing = Literal["", "token_ledger", "token_usage"]
Card = dict[bool, int]
Entry = tuple[str, int, int, uuid.UUID | None, str | None]


class Failure(Exception):  # noqa: N818 - what the model says is refused, by its SQLSTATE
    """What the model expects the database to refuse, and how."""


def minutes_of(length: timedelta) -> int:
    """Started minutes."""
    return max(0, -(-length // timedelta(minutes=1)))


def folded(
    entries: Iterable[tuple[Any, ...]],
    is_charge: Callable[[tuple[Any, ...]], bool],
    is_over: Callable[[uuid.UUID], bool],
) -> list[tuple[Any, ...]]:
    """An account's ledger in which the charges of each call that is over are one entry for each run of charges.

    An entry is one of `Entry`, and may have more values behind those.
    """
    stay: list[tuple[Any, ...]] = []
    balance = 0
    for can_fold, run in groupby(entries, is_charge):
        charges = list(run)
        last = {entry[3]: number for number, entry in enumerate(charges)}
        for number, (kind, tokens, _, call, *further) in enumerate(charges):
            folds = can_fold and is_over(call)
            if folds and number < last[call]:
                continue
            balance += sum(entry[1] for entry in charges if entry[3] == call) if folds else tokens
            stay.append((kind, balance - (stay[-1][2] if stay else 0), balance, call, *further))
    return stay


@dataclass
class Segment:
    """A span of a call at one rate; the last one of a call has no end."""

    turn: bool
    rate: int
    first_minute: int = 0
    minutes: int | None = None
    billed: int = 0
    shortfall: int = 0
    logged: bool = False

    def due(self, minutes: int) -> int:
        """What it still owes when the call has had so many."""
        own = minutes - self.first_minute if self.minutes is None else self.minutes
        return max(0, own * self.rate - self.billed)


@dataclass
class Call:
    """A metered call, as it should be."""

    user: str | None
    mode: str
    room: str
    key: str | None
    card: Card
    segments: list[Segment]
    refunded: int = 0
    ended: bool = False
    settled: bool = False
    reaped: bool = False
    failed: bool = False
    usage: dict[int, int] = field(default_factory=dict)

    @property
    def cost(self) -> int:
        return sum(segment.billed for segment in self.segments)

    @property
    def refundable(self) -> int:
        return self.cost - sum(segment.shortfall for segment in self.segments) - self.refunded


class Model:
    """What is right: balances, ledger and calls."""

    def __init__(self) -> None:
        self.failing: Failing = ""
        self.balances: dict[str, int] = {}
        self.ledger: dict[str, list[Entry]] = defaultdict(list)
        self.calls: dict[uuid.UUID, Call] = {}
        self.deleted: dict[uuid.UUID, int] = {}

    def change(self, user: str, balance: int, kind: str, call: uuid.UUID | None = None, key: str | None = None) -> None:
        """Let an account have `balance`."""
        before = self.balances.get(user, 0)
        if user not in self.balances or balance != before:
            if self.failing == "token_ledger":
                raise Failure(INJECTED)
            self.ledger[user].append((kind, balance - before, balance, call, key))
            self.balances[user] = balance

    def close(self, user: str) -> None:
        """Delete an account, and with it its usage."""
        if self.failing == "token_ledger":
            raise Failure(INJECTED)
        self.ledger[user].append(("closing", -self.balances.pop(user), 0, None, None))
        for call in self.calls.values():
            if call.user == user:
                call.usage.clear()

    def fold(self) -> int:
        """Fold the charges of calls that are over; by how many entries the ledger shrinks."""

        def is_over(session: uuid.UUID) -> bool:
            return session in self.deleted or self.calls[session].settled

        before = sum(map(len, self.ledger.values()))
        for user, entries in self.ledger.items():
            self.ledger[user] = folded(entries, lambda entry: entry[0] == "charge", is_over)
        return before - sum(map(len, self.ledger.values()))

    def bills(self, call: Call) -> bool:
        return call.user in self.balances and not str(call.user).startswith("anonymous_")

    def bill(self, session: uuid.UUID, minutes: int, status: str, *, over: bool) -> tuple[str, int, int]:
        """What a bill comes to, where the last segment is `over` or goes on.

        `status`, as the engine gives it, is of use where the model cannot know the second.
        """
        call = self.calls[session]
        if not self.bills(call):
            return "not_billed", 0, 0
        assert call.user is not None
        last = call.segments[-1]
        left, cost, bills, logs = self.balances[call.user], call.cost, [], []
        for segment in call.segments:
            due = segment.due(minutes)
            paid = min(left, due)
            left, cost = left - paid, cost + due
            bills.append((segment, due, paid))
            if (segment is not last and (due or not segment.logged)) or (segment is last and over):
                logs.append((segment, segment.billed + due))
        charged, due = sum(paid for _, _, paid in bills), sum(due for _, due, _ in bills)
        fails = (
            cost > MOST_OF_A_CALL
            or (self.failing == "token_usage" and any(used for _, used in logs))
            or (self.failing == "token_ledger" and bool(charged))
            # A segment at a rate of zero is logged if it lasted a second.
            or (
                self.failing == "token_usage"
                and status == "unsettled"
                and any(segment.rate == 0 for segment, _ in logs)
            )
        )
        if fails:
            return "unsettled", 0, 0
        for segment, owed, paid in bills:
            segment.billed += owed
            segment.shortfall += owed - paid
        for segment, used in logs:
            segment.logged = True
            if used:
                call.usage[call.segments.index(segment)] = used
        self.change(call.user, left, "charge", session)
        return "short" if due > charged else "ok", charged, due - charged

    def turn(self, call: Call, turn: bool, minute: int, *, billed: bool) -> None:  # noqa: FBT001 - as set_call_turn() does
        """Begin a segment."""
        last = call.segments[-1]
        if turn == last.turn:
            return
        if minute > last.first_minute:
            last.minutes, last.logged = minute - last.first_minute, billed
            call.segments.append(Segment(turn, call.card[turn], minute))
        else:
            last.turn, last.rate = turn, call.card[turn]

    def credit(  # noqa: PLR0913, PLR0917 - what a credit consists of
        self,
        user: str | None,
        tokens: int | None,
        key: str | None,
        kind: str,
        session: uuid.UUID | None = None,
        refundable: int = LARGEST,
    ) -> tuple[str, int]:
        """Make a credit once."""
        if tokens is None or tokens <= 0 or not key or len(key) > 200:
            raise Failure(BAD)
        if user is None or user not in self.balances:
            raise Failure(NO_ACCOUNT)
        for entry in self.ledger[user]:
            if entry[4] == key:
                if (entry[0], entry[1], entry[3]) != (kind, tokens, session):
                    raise Failure(CONFLICT)
                return "known", entry[2]
        if tokens > refundable:
            raise Failure(BAD)
        if self.balances[user] + tokens > LARGEST:
            raise Failure(TOO_MUCH)
        self.change(user, self.balances[user] + tokens, kind, session, key)
        return "ok", self.balances[user]
