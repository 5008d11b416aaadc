"""fold_charges() on random ledgers, beside a model in plain Python, and beside sessions that bill meanwhile."""

from __future__ import annotations

import os
import random
import uuid
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import pytest
from billing_model import folded
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, func, select, text
from support import examples

from oblivion_schema.billing import end_call, start_call, tick_call, top_up

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    Rows = dict[str, list[tuple[Any, ...]]]

pytestmark = pytest.mark.server

# The same examples each time; OBLIVION_TEST_EXAMPLES looks for others, as many as it says.
_EXAMPLES: Final = int(os.environ.get("OBLIVION_TEST_EXAMPLES", "0"))
_SETTINGS: Final = settings(
    max_examples=_EXAMPLES or examples(100, quick=15),
    derandomize=not _EXAMPLES,
    database=None,
    deadline=None,
)

CALLS: Final = [uuid.UUID(int=number) for number in range(1, 6)]
NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
LATE: Final = 10**8
State = Literal["goes on", "ended", "unsettled", "ended, unmetered", "goes on, unmetered", "deleted"]
STATES: Final[tuple[State, ...]] = (
    *("ended", "ended", "ended", "ended", "deleted", "goes on"),
    *("unsettled", "ended, unmetered", "goes on, unmetered"),
)
# Most rows are charges, as in a ledger. A forged row is one that SQL of somebody's own labels.
FORGED: Final = ("forged key", "forged tokens", "forged call", "forged kind")
EVENTS: Final = (*["charge"] * 12, "top_up", "refund", "direct", "reopen", *FORGED)
# The clock may be set back.
STEPS: Final = (0, *[1] * 6, 10, -7)


def at(minute: int) -> datetime:
    """A minute of the day of these ledgers."""
    return NOON + timedelta(minutes=minute)


@dataclass
class Ledger:
    """Accounts' rows and calls, and two moments to fold before, at random.

    `rows` has (kind, tokens, balance, call, key, created_at, id) for each user.
    """

    chance: random.Random
    rows: Rows = field(default_factory=lambda: defaultdict(list))
    calls: dict[UUID, tuple[State, datetime]] = field(default_factory=dict)
    minute: int = 0
    last_id: int = 0
    early: datetime = NOON
    late: datetime = NOON

    def __post_init__(self) -> None:
        for user in ("ada", "bob"):
            self.add(user, "opening", self.chance.choice([3, 50, 1000]))
        for _ in range(self.chance.choice([5, 20, 60])):
            self.minute += self.chance.choice(STEPS)
            self.happen(self.chance.choice(["ada", "ada", "bob"]), self.chance.choice(EVENTS))
        times = [row[-2] for rows in self.rows.values() for row in rows]
        self.calls = {call: (self.chance.choice(STATES), self.chance.choice(times)) for call in CALLS}
        self.early, self.late = sorted(self.chance.choice([*times, at(LATE)]) for _ in range(2))

    def balance(self, user: str) -> int:
        balance: int = self.rows[user][-1][2] if self.rows[user] else 0
        return balance

    def add(self, user: str, kind: str, tokens: int, call: UUID | None = None, key: str | None = None) -> None:
        self.last_id += 1
        balance = self.balance(user) + tokens
        self.rows[user].append((kind, tokens, balance, call, key, at(self.minute), self.last_id))

    def happen(self, user: str, event: str) -> None:
        call, key, left = self.chance.choice(CALLS), f"key {self.last_id}", self.balance(user)
        some = self.chance.randint(1, 9)
        if event == "reopen":
            self.add(user, "closing", -left)
            self.add(user, "opening", some)
        elif event in {"top_up", "refund", "forged tokens"}:
            kind = event if event in {"top_up", "refund"} else "charge"
            self.add(user, kind, some, None if event == "top_up" else call, None if kind == "charge" else key)
        elif left:
            kind = "direct" if event in {"direct", "forged kind"} else "charge"
            of_call = None if event in {"direct", "forged call"} else call
            self.add(user, kind, -min(some, left), of_call, key if event == "forged key" else None)

    def folded(self, before: datetime) -> Rows:
        """What fold_charges() should make of it."""

        def is_charge(row: tuple[Any, ...]) -> bool:
            kind, tokens, _, call, key, created_at, _ = row
            return kind == "charge" and tokens < 0 and call is not None and key is None and created_at < before

        def is_over(call: UUID) -> bool:
            state, end = self.calls[call]
            return state == "deleted" or (state in {"ended", "ended, unmetered"} and end < before)

        return {user: folded(rows, is_charge, is_over) for user, rows in self.rows.items()}


INSERT_ROWS: Final = text(
    "INSERT INTO token_ledger (user_id, kind, tokens, balance, session_id, key, created_at, id)"
    " OVERRIDING SYSTEM VALUE VALUES (:user, :kind, :tokens, :balance, :call, :key, :at, :id)"
)
INSERT_CALL: Final = text(
    "INSERT INTO call_sessions (id, room_id, user_id, mode, start_time, end_time)"
    " VALUES (:call, 'room', 'ada', 'video', '2026-01-01', :end)"
)
INSERT_METER: Final = text(
    "INSERT INTO oblivion.call_meters (session_id, mode, direct_rate, direct_rate_from, turn_rate, turn_rate_from,"
    " started_at, seen_at, used_turn, tokens_per_minute, is_plain, settled)"
    " VALUES (:call, 'video', 2, '-infinity', 6, '-infinity', now(), now(), false, 2, false, :settled)"
)


@dataclass
class Stored:
    """A ledger in the database, in a transaction that is rolled back."""

    connection: Connection

    def insert(self, ledger: Ledger) -> None:
        """Replace all accounts, rows and calls by those of `ledger`."""
        self.connection.execute(text("SET LOCAL session_replication_role = replica; SET LOCAL jit = off"))
        self.connection.execute(text("DELETE FROM user_accounts; DELETE FROM token_ledger"))
        for user, rows in ledger.rows.items():
            self.connection.execute(
                text("INSERT INTO user_accounts (user_id, tokens_remaining) VALUES (:user, :tokens)"),
                {"user": user, "tokens": ledger.balance(user)},
            )
            names = ("kind", "tokens", "balance", "call", "key", "at", "id")
            self.connection.execute(INSERT_ROWS, [{"user": user, **dict(zip(names, row, strict=True))} for row in rows])
        for call, (state, end) in ledger.calls.items():
            if state != "deleted":
                end_time = None if state.startswith("goes on") else end
                self.connection.execute(INSERT_CALL, {"call": call, "end": end_time})
            if state in {"goes on", "ended", "unsettled"}:
                self.connection.execute(INSERT_METER, {"call": call, "settled": state == "ended"})
        self.connection.execute(text("SET LOCAL session_replication_role = origin"))

    def fold(self, before: datetime) -> int:
        shrank: int = self.connection.execute(select(func.oblivion.fold_charges(before))).scalar_one()
        return shrank

    def trim(self, before: datetime) -> int:
        shrank: int = self.connection.execute(select(func.oblivion.trim_ledger(before))).scalar_one()
        return shrank

    def rows(self) -> Rows:
        """Each account's rows, as `Ledger` has them."""
        rows: Rows = defaultdict(list)
        for user, *row in self.connection.execute(
            text(
                "SELECT user_id, kind, tokens, balance, session_id, key, created_at, id FROM token_ledger"
                " ORDER BY user_id, id"
            )
        ):
            rows[user].append(tuple(row))
        return dict(rows)

    def places(self) -> dict[tuple[Any, ...], str]:
        """Where each row is stored, by its values: a row that is written moves."""
        rows = self.connection.execute(text("SELECT ctid::text, l.* FROM token_ledger AS l"))
        return {tuple(row): place for place, *row in rows}

    def is_sound(self) -> bool:
        """Whether each balance is the sum of its ledger, without a gap."""
        wrong = self.connection.execute(text("SELECT FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0"))
        return not wrong.all()


@contextmanager
def stored(engine: Engine, *ledgers: Ledger) -> Iterator[Stored]:
    with engine.connect() as connection:
        for ledger in ledgers:
            Stored(connection).insert(ledger)
        yield Stored(connection)
        connection.rollback()


def count(rows: Rows) -> int:
    return sum(map(len, rows.values()))


def ledgers() -> st.SearchStrategy[Ledger]:
    """By one seed each, for what Hypothesis would draw step by step is rather alike."""
    return st.integers(0, 2**32).map(lambda seed: Ledger(random.Random(seed)))


@given(ledgers())
@_SETTINGS
def test_folded_ledger_is_the_models(shared_engine: Engine, ledger: Ledger) -> None:
    expected = ledger.folded(ledger.late)
    with stored(shared_engine, ledger) as database:
        assert database.is_sound()
        assert database.fold(ledger.late) == count(ledger.rows) - count(expected)
        assert database.rows() == expected
        assert database.is_sound()


@given(ledgers())
@_SETTINGS
def test_rows_that_stay_the_same_are_not_written(shared_engine: Engine, ledger: Ledger) -> None:
    with stored(shared_engine, ledger) as database:
        placed = database.places()
        database.fold(ledger.late)
        once = database.places()
        assert {row: once[row] for row in placed.keys() & once.keys()}.items() <= placed.items()
        assert database.fold(ledger.late) == 0
        assert database.places() == once


@given(ledgers())
@_SETTINGS
def test_folding_again_later_is_the_same_as_folding_once(shared_engine: Engine, ledger: Ledger) -> None:
    expected = ledger.folded(ledger.late)
    with stored(shared_engine, ledger) as database:
        shrank = database.fold(ledger.early) + database.fold(ledger.late)
        assert database.rows() == expected
        assert shrank == count(ledger.rows) - count(expected)


@pytest.mark.parametrize(
    "order", ["fold early, trim late, fold late", "trim early, fold late", "fold late, trim early"]
)
@given(ledger=ledgers())
@_SETTINGS
def test_ledger_is_folded_and_trimmed_in_any_order(shared_engine: Engine, ledger: Ledger, order: str) -> None:
    with stored(shared_engine, ledger) as database:
        for step in order.split(", "):
            what, when = step.split()
            before = ledger.early if when == "early" else ledger.late
            (database.fold if what == "fold" else database.trim)(before)
            assert database.is_sound()


@given(ledgers(), st.data())
@_SETTINGS
def test_gap_that_was_there_still_shows(shared_engine: Engine, ledger: Ledger, data: st.DataObject) -> None:
    missing = data.draw(st.sampled_from([row[-1] for rows in ledger.rows.values() for row in rows[1:-1]] or [0]))
    with stored(shared_engine, ledger) as database:
        database.connection.execute(text("DELETE FROM token_ledger WHERE id = :id"), {"id": missing})
        was_sound = database.is_sound()
        database.fold(at(LATE))
        assert database.is_sound() == was_sound


# -- Beside sessions that bill


def ask(connection: Connection, function: Any) -> Any:
    """The row that a function of the engine returns; the transaction goes on."""
    return connection.execute(select(function)).one()


def started(engine: Engine) -> UUID:
    """A call of `payer`, half a minute before its first one."""
    with engine.begin() as connection:
        call: UUID = ask(connection, start_call("payer", "room", "video")).session_id
    let_pass(engine, call, -30)
    return call


def let_pass(engine: Engine, call: UUID, seconds: int) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE call_sessions SET start_time = start_time - make_interval(secs => :seconds) WHERE id = :call"),
            {"call": call, "seconds": seconds},
        )


def bill(engine: Engine, call: UUID) -> None:
    """Charge the two tokens of one more minute."""
    let_pass(engine, call, 60)
    with engine.begin() as connection:
        assert ask(connection, tick_call(call)).charged == 2


def payers_rows(engine: Engine) -> list[tuple[Any, ...]]:
    """What the ledger has of `payer` after the opening; nobody's may have a gap."""
    with engine.connect() as connection:
        assert Stored(connection).is_sound()
        return [row[:4] for row in Stored(connection).rows()["payer"][1:]]


@pytest.fixture
def interleaved(engine: Engine) -> tuple[UUID, UUID]:
    """Two calls of `payer`, charged in turn; the first is over."""
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO user_accounts (user_id) VALUES ('payer')"))
    over, going_on = started(engine), started(engine)
    for call in (over, going_on, over, going_on, over):
        bill(engine, call)
    with engine.begin() as connection:
        ask(connection, end_call(over))
    assert payers_rows(engine) == [
        ("charge", -2, 98, over),
        ("charge", -2, 96, going_on),
        ("charge", -2, 94, over),
        ("charge", -2, 92, going_on),
        ("charge", -2, 90, over),
    ]
    return over, going_on


def folded_interleaved(over: UUID, going_on: UUID) -> Sequence[tuple[object, ...]]:
    """Their rows once they are folded."""
    return [("charge", -2, 98, going_on), ("charge", -2, 96, going_on), ("charge", -6, 90, over)]


def test_charge_that_is_being_written_follows_from_what_is_folded(
    engine: Engine, interleaved: tuple[UUID, UUID]
) -> None:
    over, going_on = interleaved
    let_pass(engine, going_on, 60)
    with engine.connect() as billing, engine.connect() as folding:
        assert ask(billing, tick_call(going_on)).balance == 88
        folding.execute(text("SET lock_timeout = '5s'"))
        assert Stored(folding).fold(at(LATE)) == 2
        folding.commit()
        billing.commit()
    assert payers_rows(engine) == [*folded_interleaved(over, going_on), ("charge", -2, 88, going_on)]


def test_billing_does_not_wait_for_folding(engine: Engine, interleaved: tuple[UUID, UUID]) -> None:
    over, going_on = interleaved
    let_pass(engine, going_on, 60)
    with engine.connect() as billing, engine.connect() as folding:
        Stored(folding).fold(at(LATE))
        billing.execute(text("SET lock_timeout = '5s'"))
        assert ask(billing, tick_call(going_on)).balance == 88
        assert ask(billing, top_up("payer", 5, "key")).balance == 93
        billing.commit()
        folding.commit()
    assert payers_rows(engine) == [
        *folded_interleaved(over, going_on),
        ("charge", -2, 88, going_on),
        ("top_up", 5, 93, None),
    ]


def test_charge_that_is_rolled_back_leaves_nothing_to_fold(engine: Engine, interleaved: tuple[UUID, UUID]) -> None:
    over, going_on = interleaved
    let_pass(engine, going_on, 60)
    with engine.connect() as billing, engine.connect() as folding:
        ask(billing, tick_call(going_on))
        Stored(folding).fold(at(LATE))
        folding.commit()
        billing.rollback()
    assert payers_rows(engine) == folded_interleaved(over, going_on)
