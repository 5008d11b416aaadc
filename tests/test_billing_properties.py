"""The invariants of the token engine, in whatever order things happen: against a model in plain Python."""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pytest
from billing_model import (
    BAD,
    CONFLICT,
    INJECTED,
    LARGEST,
    NO_ACCOUNT,
    NOT_NOW,
    OPENED,
    TOO_MUCH,
    UNPAID,
    USERS,
    Call,
    Failing,
    Failure,
    Model,
    Segment,
    minutes_of,
)
from books import discrepancies
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError
from support import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

# The same examples each time; OBLIVION_TEST_EXAMPLES looks for others, as many as it says.
_EXAMPLES: Final = int(os.environ.get("OBLIVION_TEST_EXAMPLES", "0"))
_SETTINGS: Final = settings(
    max_examples=_EXAMPLES or examples(80, quick=6),
    stateful_step_count=20,
    derandomize=not _EXAMPLES,
    database=None,
    deadline=None,
    # A failure is shown at once, as it was found: to shorten it would take minutes.
    phases={Phase.generate},
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)

FAILURES = """
CREATE FUNCTION pg_temp.fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('test.failing', true) = TG_TABLE_NAME THEN
    RAISE EXCEPTION 'injected' USING ERRCODE = 'TE001';
  END IF;
  RETURN NEW;
END
$$;
CREATE TRIGGER fail BEFORE INSERT ON token_ledger FOR EACH ROW EXECUTE FUNCTION pg_temp.fail();
CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON token_usage FOR EACH ROW EXECUTE FUNCTION pg_temp.fail();
"""


SPANS: Final = (0, 1, 58, 59, 60, 61, 119, 120, 121, 600)


def users() -> st.SearchStrategy[str | None]:
    return st.sampled_from(USERS)


def keys() -> st.SearchStrategy[str | None]:
    return st.sampled_from(["a", "b b", "c" * 200, "d", "e", None, "", "f" * 201])


def spans() -> st.SearchStrategy[int]:
    """Seconds, most of them where a minute begins."""
    return st.sampled_from(SPANS) | st.integers(0, 4000)


def failures() -> st.SearchStrategy[Failing]:
    """What cannot be written to, mostly nothing."""
    return st.sampled_from(["", "", "token_ledger", "token_usage"])


ACTIONS: Final = (
    "tick",
    "tick twice",
    "turn on",
    "turn off",
    "turn on twice",
    "end",
    "end twice",
    "written end",
    "seen",
    "spend",
    "start",
    "reap",
    "settle",
    "refund half",
    "refund more",
)
# What chance would seldom bring about; where usage (!) or the ledger (?) cannot be written to.
FAILS: Final[dict[str, Failing]] = {"!": "token_usage", "?": "token_ledger", " ": ""}
PLOTS: Final = tuple(
    tuple((FAILS[step[0]], step[1:]) if step[0] in FAILS else (FAILS[" "], step) for step in plot)
    for plot in (
        ("tick", "!turn on", "tick", "!turn off", "end"),
        ("spend", "tick", "!turn on", "tick", "refund more"),
        ("seen", "!end"),
        ("spend", "end", "refund more", "refund half", "refund half"),
        ("turn on", "turn off", "turn on", "tick", "end"),
        ("!turn off", "!turn on", "reap", "turn off", "refund half"),
        ("tick", "?turn on", "?turn off", "tick", "refund more"),
        ("seen", "!reap", "?settle", "settle", "tick"),
        ("!end", "settle", "end twice", "refund more", "refund half"),
        ("turn on", "turn off", "end", "refund half", "refund half"),
        ("tick", "end", "refund half", "refund more", "start"),
    )
)


@dataclass
class Life:
    """Whose call, of what kind, at what rate, if that is new or about to be, and what happens to it.

    A step is after how many seconds, what fails then, and what is done.
    """

    user: str
    mode: str
    turn: bool
    new_rate: int | None
    ahead: float
    steps: list[tuple[int, Failing, str]]
    deleted_after: int | None


def lives() -> st.SearchStrategy[Life]:
    """By one seed each, for what Hypothesis would draw step by step is rather alike."""

    def life(chance: Random) -> Life:
        by_chance = [(chance.choice((*FAILS.values(), "")), action) for action in chance.choices(ACTIONS, k=5)]
        steps = chance.choice([by_chance, chance.choice(PLOTS)])
        return Life(
            chance.choice([*OPENED]),
            chance.choice(["video", "voice"]),
            chance.random() < 0.5,
            chance.choice([*[None] * 6, 0, 1, 2, 7, 50, 400_000]),
            chance.choice([0, 90.9]),
            [(chance.choice([0, 0, 1, *SPANS, chance.randrange(4000)]), *step) for step in steps],
            chance.choice([None, chance.choice(SPANS)]),
        )

    return st.randoms(use_true_random=True).map(life)


class Business(RuleBasedStateMachine):
    """The engine beside its model, on one connection, in a transaction that is rolled back."""

    engine: ClassVar[Engine]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.connection: Connection = self.engine.connect()
        self.connection.exec_driver_sql("SET LOCAL jit = off; DELETE FROM user_accounts")
        self.connection.exec_driver_sql("DELETE FROM token_ledger")
        self.connection.exec_driver_sql(FAILURES)
        for user, tokens in OPENED.items():
            self.open(user, tokens)

    def teardown(self) -> None:
        self.connection.rollback()
        self.connection.close()

    # What is asked of the database.

    def ask(self, sql: str, *values: object, role: str | None = None) -> list[Any]:
        """Rows of a statement, in a savepoint; raises its SQLSTATE as a Failure."""
        if role:
            self.connection.exec_driver_sql(f"SET LOCAL ROLE {role}")
        try:
            with self.connection.begin_nested():
                result = self.connection.exec_driver_sql(sql, values)
                return list(result.all()) if result.returns_rows else [result.rowcount]
        except DBAPIError as error:
            raise Failure(getattr(error.orig, "pgcode", None) or str(error)) from error
        finally:
            if role:
                self.connection.exec_driver_sql("RESET ROLE")

    def row(self, sql: str, *values: object, role: str | None = None) -> Any:
        """The only row."""
        (row,) = self.ask(sql, *values, role=role)
        return row

    def times(self, session: uuid.UUID) -> Any:
        return self.row(
            "SELECT c.*, m.seen_at, clock_timestamp() AS clock FROM call_sessions AS c"
            " LEFT JOIN oblivion.call_meters AS m ON m.session_id = c.id WHERE c.id = %s",
            str(session),
        )

    def session(self, number: int) -> uuid.UUID:
        return list(self.model.calls)[number % len(self.model.calls)]

    def going_on(self, number: int) -> uuid.UUID:
        """One of the calls that have not ended, where there is one."""
        going_on = [session for session, call in self.model.calls.items() if not call.ended]
        return going_on[number % len(going_on)] if going_on else self.session(number)

    def agree(self, expected: Callable[[], object], observed: Callable[[], object]) -> None:
        """The model and the database come to the same, or refuse with the same SQLSTATE."""
        outcomes = []
        for side in (expected, observed):
            try:
                outcomes.append(side())
            except Failure as failure:
                outcomes.append(f"SQLSTATE {failure}")
        assert outcomes[0] == outcomes[1]

    # What happens.

    @initialize(
        calls=st.lists(
            st.fixed_dictionaries(
                {
                    "user": st.sampled_from([*OPENED]),
                    "mode": st.sampled_from(["video", "voice"]),
                    "turn": st.booleans(),
                    "key": st.sampled_from(["a", "b", None]),
                }
            ),
            min_size=2,
            max_size=4,
        )
    )
    def start_some(self, *, calls: Sequence[dict[str, Any]]) -> None:
        for call in calls:
            self.start(
                **{**call, "key": None} if self.known(call["user"], call["key"]) else call, room="room", role="anon"
            )

    def known(self, user: str | None, key: str | None) -> list[uuid.UUID]:
        """The call that this user started with this key."""
        return [
            session
            for session, call in self.model.calls.items()
            if key is not None and (call.user, call.key) == (user, key)
        ]

    def start_again(self, session: uuid.UUID) -> None:
        """Its client did not hear that it has started."""
        call = self.model.calls[session]
        if call.key is not None:
            self.start(
                user=call.user, mode=call.mode, turn=call.segments[0].turn, room=call.room, key=call.key, role="anon"
            )

    @precondition(lambda self: len(self.model.calls) < 6)
    @rule(
        user=users(),
        mode=st.sampled_from(["video", "voice-only", "voice"]),
        turn=st.booleans(),
        room=st.sampled_from(["room", "room", "other room"]),
        key=st.none() | st.sampled_from(["a", "b"]),
        role=st.sampled_from(["anon", None]),
    )
    def start(  # noqa: PLR0913 - what a start consists of
        self, *, user: str | None, mode: str, turn: bool, room: str, key: str | None, role: str | None
    ) -> None:
        priced = "video" if mode == "video" else "voice"
        card = {
            row.used_turn: row.tokens_per_minute
            for row in self.ask(
                "SELECT DISTINCT ON (used_turn) used_turn, tokens_per_minute FROM token_rates"
                " WHERE mode = %s AND effective_from <= clock_timestamp() ORDER BY used_turn, effective_from DESC",
                priced,
            )
        }
        known = [(session, self.model.calls[session]) for session in self.known(user, key)]
        balance = None if user is None or user in UNPAID else self.model.balances.get(user)
        status = "not_billed" if balance is None else "short" if balance < card[turn] else "ok"
        sql = "SELECT * FROM start_call(%s, %s, %s, %s, %s)"
        if known and (known[0][1].room, known[0][1].mode) != (room, priced):
            with pytest.raises(Failure, match=CONFLICT):
                self.ask(sql, user, room, mode, turn, key, role=role)
            return
        row = self.row(sql, user, room, mode, turn, key, role=role)
        assert (row.charged, row.shortfall, row.balance) == (0, 0, balance)
        if known:
            session, call = known[0]
            assert row.session_id == session
            assert row.status == ("ended" if call.ended else status)
            assert row.credit_cost == call.cost
        else:
            assert row.status == status
            self.model.calls[row.session_id] = Call(user, priced, room, key, card, [Segment(turn, card[turn])])

    def advance(self, session: uuid.UUID, action: str, sql: str, *values: object, turn: bool = False) -> None:
        """Tick, turn or end a call, and let the model do so."""
        call = self.model.calls[session]
        before = self.times(session)
        row = self.row(sql, str(session), *values)
        after = self.times(session)
        balance = self.model.balances.get(str(call.user))
        if call.ended and not call.reaped and (call.settled or action in {"tick", "turn"}):
            assert (row.status, row.charged, row.shortfall, row.balance) == ("ended", 0, 0, balance)
            assert row.minutes_billed == minutes_of(before.end_time - before.start_time)
            assert (after.end_time, after.seen_at) == (before.end_time, before.seen_at)
            return
        goes_on = not call.ended or call.reaped
        until = after.seen_at if goes_on and action != "end" else after.end_time
        earliest = before.clock if goes_on else before.end_time
        minutes = minutes_of(until - after.start_time)
        if row.status in {"ok", "short"}:
            minutes = row.minutes_billed
        elif action == "turn" and turn != call.segments[-1].turn:
            first = self.row("SELECT first_minute FROM oblivion.call_meters WHERE session_id = %s", str(session))[0]
            minutes = first if first > call.segments[-1].first_minute else minutes
        # The moment between what the engine reads and what is read here.
        assert minutes_of(earliest - after.start_time) <= minutes <= minutes_of(until - after.start_time)
        last = call.segments[-1]
        over = (
            action == "end" or not goes_on or (action == "turn" and turn != last.turn and minutes > last.first_minute)
        )
        status, charged, shortfall = self.model.bill(session, minutes, row.status, over=over)
        assert (row.status, row.charged, row.shortfall) == (status, charged, shortfall)
        assert row.credit_cost == call.cost
        call.failed = status == "unsettled"
        call.ended = action == "end" or not goes_on
        call.settled = call.ended and not call.failed
        call.reaped = False
        assert (after.end_time is not None) == call.ended
        if action == "turn":
            self.model.turn(call, turn, minutes, billed=status in {"ok", "short"})
        if status in {"ok", "short"}:
            balance = self.model.balances[str(call.user)]
            rate = call.segments[-1].rate
            assert (row.balance, row.minutes_left) == (balance, balance // rate if rate else None)

    @rule(life=lives())
    def start_and_live(self, *, life: Life) -> None:
        key = f"call {len(self.model.calls)}"
        if life.new_rate is not None:
            self.change_rate(life.mode, life.turn, life.new_rate, life.ahead)
        if not self.known(life.user, key):
            self.start(user=life.user, mode=life.mode, turn=life.turn, room="room", key=key, role="anon")
            self.live(list(self.model.calls)[-1], life)

    @precondition(lambda self: self.model.calls)
    @rule(number=st.integers(0, 20), life=lives())
    def live_on(self, *, number: int, life: Life) -> None:
        self.live(self.going_on(number), life)

    def live(self, session: uuid.UUID, life: Life) -> None:
        """Something happens to a call, once or twice, and something else."""
        for seconds, failing, action in life.steps:
            self.let_time_pass(seconds)
            with self.failing(failing):
                for _ in range(2 if action.endswith("twice") else 1):
                    self.act(session, action.removesuffix(" twice"))
            self.all_is_right()
        if life.deleted_after is not None:
            self.let_time_pass(life.deleted_after)
            self.delete_call(session)

    def act(self, session: uuid.UUID, action: str) -> None:
        """One of the `ACTIONS`."""
        call = self.model.calls[session]
        does: dict[str, Callable[[], object]] = {
            "tick": lambda: self.advance(session, "tick", "SELECT * FROM tick_call(%s)"),
            "turn on": lambda: self.set_turn(session, turn=True),
            "turn off": lambda: self.set_turn(session, turn=False),
            "end": lambda: self.advance(session, "end", "SELECT * FROM end_call(%s)"),
            "written end": lambda: self.write_end(session),
            "seen": lambda: self.write("UPDATE call_sessions SET room_id = room_id WHERE id = %s", str(session)),
            "spend": lambda: self.spend(str(call.user)),
            "start": lambda: self.start_again(session),
            "reap": lambda: self.reap(seconds=0, most=1000),
            "settle": lambda: self.settle(most=1000),
            "refund half": lambda: self.refund_once(session, call.refundable // 2, f"refund {uuid.uuid4()}", 1),
            "refund more": lambda: self.refund_once(session, call.refundable + 1, f"refund {uuid.uuid4()}", 1),
        }
        does[action]()

    def set_turn(self, session: uuid.UUID, *, turn: bool) -> None:
        self.advance(session, "turn", "SELECT * FROM set_call_turn(%s, %s)", turn, turn=turn)

    @contextmanager
    def failing(self, failing: Failing) -> Iterator[None]:
        """Meanwhile nothing can be written to that table."""
        self.fail(failing)
        yield
        self.fail("")

    def fail(self, failing: Failing) -> None:
        self.model.failing = failing
        self.ask("SELECT set_config('test.failing', %s, true)", failing)

    def let_time_pass(self, seconds: int) -> None:
        """All that there is moves into the past, which no trigger hears of."""
        self.connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        self.connection.execute(
            text(
                "UPDATE call_sessions SET start_time = start_time - :span, end_time = end_time - :span;"
                "UPDATE oblivion.call_meters SET started_at = started_at - :span, seen_at = seen_at - :span"
            ),
            {"span": timedelta(seconds=seconds)},
        )
        self.connection.execute(
            text("UPDATE token_rates SET effective_from = effective_from - :span WHERE effective_from > '2000-01-01'"),
            {"span": timedelta(seconds=seconds)},
        )
        self.connection.exec_driver_sql("SET LOCAL session_replication_role = origin")

    @precondition(lambda self: any(not call.ended for call in self.model.calls.values()))
    @rule(number=st.integers(0, 20), microseconds=st.sampled_from([-1, 0, 1]))
    def lose_sight_where_a_minute_begins(self, *, number: int, microseconds: int) -> None:
        """A call was last seen at, just before or just after the end of a minute; then it is reaped."""
        going_on = [session for session, call in self.model.calls.items() if not call.ended]
        session = going_on[number % len(going_on)]
        seen = self.times(session)
        length = timedelta(minutes=minutes_of(seen.seen_at - seen.start_time) + 1, microseconds=microseconds)
        self.connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        self.connection.execute(
            text(
                "UPDATE oblivion.call_meters SET started_at = seen_at - :length WHERE session_id = :id;"
                "UPDATE call_sessions SET start_time = started_at FROM oblivion.call_meters"
                " WHERE id = :id AND session_id = id"
            ),
            {"length": length, "id": session},
        )
        self.connection.exec_driver_sql("SET LOCAL session_replication_role = origin")
        self.reap(seconds=0, most=1000)

    @rule(
        user=users(),
        tokens=st.sampled_from([1, 5, 100, LARGEST, 0, -1, None]),
        key=keys(),
        failures=st.lists(failures(), min_size=1, max_size=3),
    )
    def top_up(self, *, user: str | None, tokens: int | None, key: str | None, failures: Sequence[Failing]) -> None:
        for failing in failures:
            self.fail(failing)
            self.agree(
                lambda: self.model.credit(user, tokens, key, "top_up"),
                lambda: tuple(self.row("SELECT status, balance FROM top_up(%s, %s, %s)", user, tokens, key)),
            )
        self.fail("")

    @precondition(lambda self: self.model.calls)
    @rule(
        number=st.integers(0, 20),
        refunds=st.lists(
            st.tuples(st.sampled_from(["all", "half", "too many"]) | st.integers(-1, 3), keys(), st.integers(1, 2)),
            min_size=1,
            max_size=4,
        ),
    )
    def refund(self, *, number: int, refunds: Sequence[tuple[str | int, str | None, int]]) -> None:
        charged = [session for session, call in self.model.calls.items() if call.refundable]
        session = charged[number % len(charged)] if charged else self.session(number)
        for amount, key, times in refunds:
            left = self.model.calls[session].refundable
            tokens = {"all": left, "half": left // 2, "too many": left + 1}.get(str(amount), amount)
            self.refund_once(session, int(tokens), key, times)
            self.all_is_right()

    def refund_once(self, session: uuid.UUID, tokens: int, key: str | None, times: int) -> None:
        """In so many tries."""
        call = self.model.calls[session]

        def credit() -> tuple[str, int]:
            outcome = self.model.credit(call.user, tokens, key, "refund", session, call.refundable)
            call.refunded += tokens if outcome[0] == "ok" else 0
            return outcome

        for _ in range(times):
            self.agree(
                credit,
                lambda: tuple(
                    self.row(
                        "SELECT status, balance FROM refund_call(%s, %s, %s)",
                        str(session),
                        tokens,
                        key,
                        role="service_role",
                    )
                ),
            )

    @rule(
        user=st.sampled_from([*OPENED]),
        write=st.sampled_from(["sign in", "subtract", "set"]),
        tokens=spans(),
        failing=failures(),
    )
    def write_balance(self, *, user: str, write: str, tokens: int, failing: Failing) -> None:
        """As clients of before do, in three ways."""
        balance = {"sign in": 100, "subtract": max(0, self.model.balances.get(user, 0) - tokens), "set": tokens}[write]
        kind = "direct" if user in self.model.balances else "opening"
        with self.failing(failing):
            self.agree(
                lambda: self.model.change(user, balance, kind),
                lambda: self.write(
                    "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES (%s, %s)"
                    " ON CONFLICT (user_id) DO UPDATE SET tokens_remaining = excluded.tokens_remaining",
                    user,
                    balance,
                ),
            )

    def spend(self, user: str) -> None:
        """All but a token or two."""
        if self.model.balances.get(user, 0) > 2:
            self.agree(
                lambda: self.model.change(user, 2, "direct"),
                lambda: self.write("UPDATE user_accounts SET tokens_remaining = 2 WHERE user_id = %s", user),
            )

    def write(self, sql: str, *values: object) -> None:
        """As a visitor."""
        self.ask(sql, *values, role="anon")

    def open(self, user: str, tokens: int) -> None:
        self.write("INSERT INTO user_accounts (user_id, tokens_remaining) VALUES (%s, %s)", user, tokens)
        self.model.change(user, tokens, "opening")

    @rule(reopened=st.booleans(), failing=failures())
    def close_account(self, *, reopened: bool, failing: Failing) -> None:
        if "leaver" in self.model.balances:
            with self.failing(failing):
                self.agree(
                    lambda: self.model.close("leaver"),
                    lambda: self.write("DELETE FROM user_accounts WHERE user_id = %s", "leaver"),
                )
        if reopened and "leaver" not in self.model.balances:
            self.open("leaver", 7)

    def write_end(self, session: uuid.UUID) -> None:
        """A client of before ends a metered call, by a clock of its own, and says what it cost."""
        call = self.model.calls[session]
        before = self.times(session)
        after = self.row(
            "UPDATE call_sessions SET end_time = '1999-12-31', used_turn = NOT used_turn, credit_cost = 0.3"
            " WHERE id = %s RETURNING *",
            str(session),
            role="anon",
        )
        assert after.used_turn == before.used_turn
        if call.ended:
            assert after.end_time == before.end_time
            return
        assert before.clock <= after.end_time <= after.updated_at
        # What it has been billed tells whether it could be: the row has no status.
        minutes = minutes_of(after.end_time - after.start_time)
        unsettled = self.row("SELECT NOT settled FROM oblivion.call_meters WHERE session_id = %s", str(session))[0]
        status, _, _ = self.model.bill(session, minutes, "unsettled" if unsettled else "", over=True)
        assert unsettled == (status == "unsettled")
        assert after.credit_cost == call.cost
        call.ended, call.settled, call.failed = True, not unsettled, unsettled

    @precondition(lambda self: self.model.calls)
    @rule(
        number=st.integers(0, 20),
        write=st.sampled_from(
            [
                "UPDATE call_sessions SET credit_cost = 0 WHERE id::text = %s",
                "UPDATE call_sessions SET start_time = now() + interval '1 day' WHERE id::text = %s",
                "UPDATE call_sessions SET user_id = 'ample', mode = 'voice-only' WHERE id::text = %s",
                "UPDATE call_sessions SET created_at = now(), end_time = NULL WHERE id::text = %s",
            ]
        ),
    )
    def tamper(self, *, number: int, write: str) -> None:
        self.agree(lambda: None, lambda: self.write(write, str(self.session(number))))

    @rule(user=st.sampled_from(["scarce", "middling"]), tokens=st.integers(0, 9))
    def call_as_before(self, *, user: str, tokens: int) -> None:
        """A call with no metering, billed by its client."""
        session = self.row(
            "INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('room', %s, 'video') RETURNING id",
            user,
            role="anon",
        )[0]
        for function in ("tick_call", "end_call"):
            assert self.row(f"SELECT status FROM {function}(%s)", str(session)) == ("not_billed",)
        self.write("UPDATE call_sessions SET credit_cost = %s WHERE id = %s", tokens / 10, str(session))
        assert self.row("SELECT status FROM end_call(%s)", str(session)) == ("ended",)
        assert self.times(session).credit_cost * 10 == tokens
        self.agree(
            lambda: self.model.change(user, max(0, self.model.balances[user] - tokens), "direct"),
            lambda: self.write(
                "UPDATE user_accounts SET tokens_remaining = %s WHERE user_id = %s",
                max(0, self.row("SELECT tokens_remaining FROM user_accounts WHERE user_id = %s", user)[0] - tokens),
                user,
            ),
        )

    @rule(seconds=st.sampled_from([0, 30, 60, 300]), most=st.sampled_from([1, 2, 1000]))
    def reap(self, *, seconds: int, most: int) -> None:
        going_on = {session: self.times(session) for session, call in self.model.calls.items() if not call.ended}
        limit = timedelta(seconds=seconds)
        rows = self.ask("SELECT * FROM reap_stale_calls(%s, %s)", limit, most)
        clock = self.row("SELECT clock_timestamp()")[0]
        stale = {session for session, times in going_on.items() if times.clock - times.seen_at >= limit}
        perhaps = {session for session, times in going_on.items() if clock - times.seen_at >= limit}
        assert {row.session_id for row in rows} <= perhaps
        assert min(len(stale), most) <= len(rows) <= most
        for row in rows:
            call, times = self.model.calls[row.session_id], going_on[row.session_id]
            assert row.end_time == max(times.seen_at, times.start_time)
            minutes = minutes_of(row.end_time - times.start_time)
            outcome = self.model.bill(row.session_id, minutes, row.status, over=True)
            assert (row.status, row.charged, row.shortfall) == outcome
            call.ended, call.reaped = True, True
            call.failed = row.status == "unsettled"
            call.settled = not call.failed

    @rule(most=st.sampled_from([1, 2, 1000]))
    def settle(self, *, most: int) -> None:
        rows = self.ask("SELECT * FROM settle_calls(%s)", most, role="service_role")
        unsettled = {session for session, call in self.model.calls.items() if call.ended and not call.settled}
        assert {row.session_id for row in rows} <= unsettled
        assert len(rows) == min(len(unsettled), most)
        for row in rows:
            call, times = self.model.calls[row.session_id], self.times(row.session_id)
            minutes = minutes_of(times.end_time - times.start_time)
            outcome = self.model.bill(row.session_id, minutes, row.status, over=True)
            assert (row.status, row.charged, row.shortfall) == outcome
            call.failed = row.status == "unsettled"
            call.settled = not call.failed

    @rule()
    def fold(self) -> None:
        self.agree(self.model.fold, lambda: self.row("SELECT oblivion.fold_charges('infinity')")[0])

    def delete_call(self, session: uuid.UUID) -> None:
        """A visitor deletes a call, which is billed first."""
        call = self.model.calls[session]
        before = self.times(session)
        until = before.end_time or before.clock
        try:
            self.write("DELETE FROM call_sessions WHERE id = %s", str(session))
        except Failure as failure:
            assert str(failure) == NOT_NOW  # noqa: PT017 - the model is asked, too
            if not call.settled:
                length = minutes_of(until - before.start_time)
                assert self.model.bill(session, length, "unsettled", over=True)[0] == "unsettled"
                return
            raise
        if not call.settled:
            status = self.model.bill(session, minutes_of(until - before.start_time), "", over=True)[0]
            assert status != "unsettled"
        self.model.deleted[session] = sum(call.usage.values())
        del self.model.calls[session]

    def change_rate(self, mode: str, turn: bool, rate: int, ahead: float) -> None:  # noqa: FBT001 - the columns
        """Calls that have started keep theirs."""
        self.ask(
            "INSERT INTO token_rates VALUES (%s, %s, clock_timestamp() + %s, %s)",
            mode,
            turn,
            timedelta(seconds=ahead),
            rate,
            role="service_role",
        )

    @precondition(lambda self: self.model.calls)
    @rule(
        number=st.integers(0, 20),
        statements=st.lists(
            st.sampled_from(
                [
                    "SELECT tick_call('{}')",
                    "SELECT set_call_turn('{}', true)",
                    "SELECT set_call_turn('{}', false)",
                    "SELECT end_call('{}')",
                    "SELECT refund_call('{}', 1, 'rolled back')",
                    "SELECT top_up('middling', 10, 'rolled back')",
                    "SELECT start_call('middling', 'room', 'video', true, 'rolled back')",
                    "SELECT reap_stale_calls('0')",
                    "SELECT settle_calls()",
                    "DELETE FROM call_sessions WHERE id = '{}'",
                    "UPDATE user_accounts SET tokens_remaining = 1",
                ]
            ),
            min_size=1,
            max_size=4,
        ),
    )
    def roll_back(self, *, number: int, statements: Sequence[str]) -> None:
        """Nothing of it has happened."""
        session = self.session(number)
        savepoint = self.connection.begin_nested()
        for statement in statements:
            try:
                self.ask(statement.format(session))
            except Failure as failure:
                assert str(failure) in {BAD, TOO_MUCH, NO_ACCOUNT, CONFLICT, INJECTED, NOT_NOW}  # noqa: PT017
        savepoint.rollback()

    # What holds after each of them.

    @invariant()
    def all_is_right(self) -> None:
        wrong = discrepancies(self.connection)
        assert not wrong, "\n".join(wrong)
        self.balances_and_ledger_are_the_models()
        self.calls_are_the_models()
        self.receipts_are_the_models()
        self.usage_is_the_models()

    def balances_and_ledger_are_the_models(self) -> None:
        balances = self.ask("SELECT user_id, tokens_remaining FROM user_accounts")
        assert {row.user_id: row.tokens_remaining for row in balances} == self.model.balances
        ledger = defaultdict(list)
        for user, *entry in self.ask(
            "SELECT user_id, kind, tokens, balance, session_id, key FROM token_ledger ORDER BY id"
        ):
            ledger[user].append(tuple(entry))
        assert ledger == {user: entries for user, entries in self.model.ledger.items() if entries}

    def calls_are_the_models(self) -> None:
        rows = self.ask(
            "SELECT c.user_id, c.id, c.end_time, m.* FROM call_sessions AS c"
            " JOIN oblivion.call_meters AS m ON m.session_id = c.id"
        )
        assert {row.id for row in rows} == set(self.model.calls)
        for row in rows:
            call = self.model.calls[row.id]
            expected = (call.user, call.cost, call.ended, call.settled, call.reaped, call.failed)
            found = (row.user_id, row.cost, row.end_time is not None, row.settled, row.reaped, row.has_incident)
            assert found == expected

    def receipts_are_the_models(self) -> None:
        receipts = defaultdict(list)
        for row in self.ask(
            "SELECT m.session_id, e.* FROM oblivion.call_meters AS m, explain_call(m.session_id) AS e ORDER BY segment"
        ):
            assert row.minutes >= 0
            assert row.due == row.minutes * row.tokens_per_minute
            receipts[row.session_id].append(
                (row.mode, row.used_turn, row.first_minute, row.tokens_per_minute, row.due, row.charged, row.shortfall)
            )
        assert receipts == {
            session: [
                (
                    call.mode,
                    segment.turn,
                    segment.first_minute + 1,
                    segment.rate,
                    segment.billed,
                    segment.billed - segment.shortfall,
                    segment.shortfall,
                )
                for segment in call.segments
            ]
            for session, call in self.model.calls.items()
        }

    def usage_is_the_models(self) -> None:
        usage = defaultdict(list)
        for row in self.ask("SELECT * FROM token_usage WHERE tokens_used > 0"):
            usage[uuid.UUID(row.session_id)].append((row.tokens_used, row.mode, row.used_turn, row.user_id))
        gone = {session: sum(tokens for tokens, *_ in usage.pop(session, [])) for session in self.model.deleted}
        closed = any(entry[0] == "closing" for entry in self.model.ledger["leaver"])
        assert closed or gone == self.model.deleted
        expected = {
            session: sorted(
                (tokens, call.mode, call.segments[number].turn, call.user) for number, tokens in call.usage.items()
            )
            for session, call in self.model.calls.items()
            if call.usage
        }
        assert {session: sorted(rows) for session, rows in usage.items()} == expected


def test_whatever_happens_the_books_are_those_of_the_model(shared_engine: Engine) -> None:
    Business.engine = shared_engine
    run_state_machine_as_test(Business, settings=_SETTINGS)


@given(
    spans=st.lists(spans(), min_size=1, max_size=6),
    mode=st.sampled_from(["video", "voice-only"]),
    turn=st.booleans(),
    microseconds=st.sampled_from([-1, 0, 1]),
)
@settings(_SETTINGS)
def test_ticked_call_costs_what_one_costs_that_is_only_ended(
    shared_engine: Engine,
    spans: Sequence[int],
    mode: str,
    turn: bool,  # noqa: FBT001 - given by name
    microseconds: int,
) -> None:
    with shared_engine.connect() as connection:
        calls = [
            connection.execute(
                text("SELECT session_id FROM start_call('developer', 'room', :mode, :turn)"),
                {"mode": mode, "turn": turn},
            ).scalar_one()
            for _ in range(2)
        ]
        connection.exec_driver_sql("UPDATE user_accounts SET tokens_remaining = 1000000 WHERE user_id = 'developer'")
        for span in spans:
            connection.execute(
                text("UPDATE call_sessions SET start_time = start_time - :span"), {"span": timedelta(seconds=span)}
            )
            connection.execute(text("SELECT tick_call(:call)"), {"call": calls[0]})
        # Both ended at the same moment, which is the only one that is read by nobody's clock.
        length = timedelta(minutes=minutes_of(timedelta(seconds=sum(spans) + 1)) + 1, microseconds=microseconds)
        connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        connection.execute(text("UPDATE oblivion.call_meters SET started_at = seen_at - :length"), {"length": length})
        connection.exec_driver_sql(
            "UPDATE call_sessions SET start_time = started_at FROM oblivion.call_meters WHERE session_id = id"
        )
        connection.exec_driver_sql("SET LOCAL session_replication_role = origin")
        rows = connection.exec_driver_sql("SELECT session_id, status, charged FROM reap_stale_calls('0')").all()
        costs: dict[Any, Any] = {
            row.id: row.credit_cost for row in connection.exec_driver_sql("SELECT * FROM call_sessions")
        }
        assert sorted(row.session_id for row in rows) == sorted(calls)
        rate = {("video", False): 2, ("video", True): 6, ("voice-only", False): 1, ("voice-only", True): 2}[mode, turn]
        assert costs[calls[0]] == costs[calls[1]] == minutes_of(length) * rate
        assert discrepancies(connection) == []
        connection.rollback()
