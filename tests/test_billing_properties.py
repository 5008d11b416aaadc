"""The invariants of the token engine, in whatever order things happen: against a model."""

from __future__ import annotations

import os
import uuid
from collections import defaultdict
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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


# The same examples each time; OBLIVION_TEST_EXAMPLES looks for others, as many as it says.
_EXAMPLES: Final = int(os.environ.get("OBLIVION_TEST_EXAMPLES", "0"))
_SETTINGS: Final = settings(
    max_examples=_EXAMPLES or 25,
    stateful_step_count=30,
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


def users() -> st.SearchStrategy[str | None]:
    return st.sampled_from(USERS)


def keys() -> st.SearchStrategy[str | None]:
    return st.sampled_from(["a", "b b", "c" * 200, None, "", "d" * 201])


def spans() -> st.SearchStrategy[int]:
    """Seconds, most of them where a minute begins."""
    return st.sampled_from([0, 1, 58, 59, 60, 61, 119, 120, 121, 600]) | st.integers(0, 4000)


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
        return self.row("SELECT *, clock_timestamp() AS clock FROM call_sessions WHERE id = %s", str(session))

    def session(self, number: int) -> uuid.UUID:
        return list(self.model.calls)[number % len(self.model.calls)]

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
                    "user": st.sampled_from([*OPENED, *OPENED, "anonymous_1"]),
                    "mode": st.sampled_from(["video", "voice"]),
                    "turn": st.booleans(),
                }
            ),
            min_size=2,
            max_size=4,
        )
    )
    def start_some(self, *, calls: Sequence[dict[str, Any]]) -> None:
        for call in calls:
            self.start(**call, room="room", key=None, role="anon")

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
        known = [
            (session, call)
            for session, call in self.model.calls.items()
            if key is not None and (call.user, call.key) == (user, key)
        ]
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
        if (
            call.ended
            and not (call.reaped and not call.settled)
            and not call.reaped
            and (call.settled or action in {"tick", "turn"})
        ):
            assert (row.status, row.charged, row.shortfall, row.balance) == ("ended", 0, 0, balance)
            assert row.minutes_billed == minutes_of(before.end_time - before.start_time)
            assert (after.end_time, after.updated_at) == (before.end_time, before.updated_at)
            return
        goes_on = not call.ended or call.reaped
        until = after.updated_at if goes_on and action != "end" else after.end_time
        earliest = before.clock if goes_on else before.end_time
        minutes = minutes_of(until - after.start_time)
        if row.status in {"ok", "short"}:
            minutes = row.minutes_billed
        elif action == "turn" and turn != call.segments[-1].turn:
            first = self.row("SELECT first_minute FROM oblivion.call_meters WHERE session_id = %s", str(session))[0]
            minutes = first if first > call.segments[-1].first_minute else minutes
        # The moment between what the engine reads and what is read here.
        assert minutes_of(earliest - after.start_time) <= minutes <= minutes_of(until - after.start_time)
        status, charged, shortfall = self.model.bill(session, minutes, row.status)
        assert (row.status, row.charged, row.shortfall) == (status, charged, shortfall)
        assert row.credit_cost == call.cost
        call.failed = status == "unsettled"
        call.ended = action == "end" or not goes_on
        call.settled = call.ended and not call.failed
        call.reaped = False
        assert (after.end_time is not None) == call.ended
        if action == "turn":
            self.model.turn(call, turn, minutes)
        if status in {"ok", "short"}:
            balance = self.model.balances[str(call.user)]
            rate = call.segments[-1].rate
            assert (row.balance, row.minutes_left) == (balance, balance // rate if rate else None)

    @precondition(lambda self: self.model.calls)
    @rule(number=st.integers(0, 5), seconds=spans(), times=st.integers(1, 2))
    def tick(self, *, number: int, seconds: int, times: int) -> None:
        self.let_time_pass(seconds)
        for _ in range(times):
            self.advance(self.session(number), "tick", "SELECT * FROM tick_call(%s)")

    @precondition(lambda self: self.model.calls)
    @rule(number=st.integers(0, 5), seconds=spans(), turn=st.booleans(), times=st.integers(1, 2))
    def set_turn(self, *, number: int, seconds: int, turn: bool, times: int) -> None:
        self.let_time_pass(seconds)
        for _ in range(times):
            self.advance(self.session(number), "turn", "SELECT * FROM set_call_turn(%s, %s)", turn, turn=turn)

    @precondition(lambda self: self.model.calls)
    @rule(number=st.integers(0, 5), seconds=spans(), times=st.integers(1, 2))
    def end(self, *, number: int, seconds: int, times: int) -> None:
        self.let_time_pass(seconds)
        for _ in range(times):
            self.advance(self.session(number), "end", "SELECT * FROM end_call(%s)")

    @rule(function=st.sampled_from(["tick_call(%s)", "end_call(%s)"]))
    def name_no_call(self, *, function: str) -> None:
        row = self.row(f"SELECT * FROM {function}", str(uuid.uuid4()))
        assert (row.status, row.charged, row.shortfall, row.balance) == ("unknown", 0, 0, None)

    def let_time_pass(self, seconds: int) -> None:
        """All that there is moves into the past, which no trigger hears of."""
        self.connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        self.connection.execute(
            text(
                "UPDATE call_sessions SET start_time = start_time - :span, end_time = end_time - :span,"
                " updated_at = updated_at - :span"
            ),
            {"span": timedelta(seconds=seconds)},
        )
        self.connection.execute(
            text("UPDATE token_rates SET effective_from = effective_from - :span WHERE effective_from > '2000-01-01'"),
            {"span": timedelta(seconds=seconds)},
        )
        self.connection.exec_driver_sql("SET LOCAL session_replication_role = origin")

    @precondition(lambda self: any(not call.ended for call in self.model.calls.values()))
    @rule(number=st.integers(0, 5), microseconds=st.sampled_from([-1, 0, 1]), failing=st.sampled_from(["", "", "now"]))
    def lose_sight_where_a_minute_begins(self, *, number: int, microseconds: int, failing: str) -> None:
        """A call was last seen at, just before or just after the end of a minute; then it is reaped."""
        going_on = [session for session, call in self.model.calls.items() if not call.ended]
        session = going_on[number % len(going_on)]
        seen = self.times(session)
        length = timedelta(minutes=minutes_of(seen.updated_at - seen.start_time) + 1, microseconds=microseconds)
        self.connection.exec_driver_sql("SET LOCAL session_replication_role = replica")
        self.connection.execute(
            text("UPDATE call_sessions SET start_time = updated_at - :length WHERE id = :id"),
            {"length": length, "id": session},
        )
        self.connection.exec_driver_sql("SET LOCAL session_replication_role = origin")
        if not failing:
            self.reap(seconds=0, most=1000)

    @rule(user=users(), tokens=st.sampled_from([1, 5, 100, LARGEST, 0, -1, None]), key=keys(), times=st.integers(1, 2))
    def top_up(self, *, user: str | None, tokens: int | None, key: str | None, times: int) -> None:
        for _ in range(times):
            self.agree(
                lambda: self.model.credit(user, tokens, key, "top_up"),
                lambda: tuple(self.row("SELECT status, balance FROM top_up(%s, %s, %s)", user, tokens, key)),
            )

    @precondition(lambda self: self.model.calls)
    @rule(number=st.integers(0, 5), tokens=st.integers(-1, 12), key=keys(), times=st.integers(1, 2))
    def refund(self, *, number: int, tokens: int, key: str | None, times: int) -> None:
        session = self.session(number)
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

    @rule(user=st.sampled_from([*OPENED]), write=st.sampled_from(["sign in", "subtract", "set"]), tokens=spans())
    def write_balance(self, *, user: str, write: str, tokens: int) -> None:
        """As clients of before do, in three ways."""
        balance = {"sign in": 100, "subtract": max(0, self.model.balances.get(user, 0) - tokens), "set": tokens}[write]
        kind = "direct" if user in self.model.balances else "opening"
        self.agree(
            lambda: self.model.change(user, balance, kind),
            lambda: self.write(
                "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES (%s, %s)"
                " ON CONFLICT (user_id) DO UPDATE SET tokens_remaining = excluded.tokens_remaining",
                user,
                balance,
            ),
        )

    def write(self, sql: str, *values: object) -> None:
        """As a visitor."""
        self.ask(sql, *values, role="anon")

    def open(self, user: str, tokens: int) -> None:
        self.write("INSERT INTO user_accounts (user_id, tokens_remaining) VALUES (%s, %s)", user, tokens)
        self.model.change(user, tokens, "opening")

    @rule(reopened=st.booleans())
    def close_account(self, *, reopened: bool) -> None:
        if "leaver" in self.model.balances:
            self.agree(
                lambda: self.model.close("leaver"),
                lambda: self.write("DELETE FROM user_accounts WHERE user_id = %s", "leaver"),
            )
        if reopened and "leaver" not in self.model.balances and self.model.failing != "token_ledger":
            self.open("leaver", 7)

    @precondition(lambda self: self.model.calls)
    @rule(
        number=st.integers(0, 5),
        seconds=spans(),
        end_time=st.sampled_from(["1999-12-31", "2999-12-31"]),
        role=st.sampled_from(["anon", "authenticated", "service_role"]),
    )
    def write_end(self, *, number: int, seconds: int, end_time: str, role: str) -> None:
        """A client of before ends a metered call, by a clock of its own, and says what it cost."""
        self.let_time_pass(seconds)
        session = self.session(number)
        call = self.model.calls[session]
        before = self.times(session)
        after = self.row(
            "UPDATE call_sessions SET end_time = %s, used_turn = NOT used_turn, credit_cost = 0.3 WHERE id = %s"
            " RETURNING *",
            end_time,
            str(session),
            role=role,
        )
        assert after.used_turn == before.used_turn
        if call.ended:
            assert after.end_time == before.end_time
            return
        assert before.clock <= after.end_time <= after.updated_at
        # What it has been billed tells whether it could be: the row has no status.
        minutes = minutes_of(after.end_time - after.start_time)
        unsettled = self.row("SELECT NOT settled FROM oblivion.call_meters WHERE session_id = %s", str(session))[0]
        status, _, _ = self.model.bill(session, minutes, "unsettled" if unsettled else "")
        assert unsettled == (status == "unsettled")
        assert after.credit_cost == call.cost
        call.ended, call.settled, call.failed = True, not unsettled, unsettled

    @precondition(lambda self: self.model.calls and self.model.failing != "token_usage")
    @rule(
        number=st.integers(0, 5),
        write=st.sampled_from(
            [
                "UPDATE call_sessions SET credit_cost = 0 WHERE id::text = %s",
                "UPDATE call_sessions SET start_time = now() + interval '1 day' WHERE id::text = %s",
                "UPDATE call_sessions SET user_id = 'ample', mode = 'voice-only' WHERE id::text = %s",
                "UPDATE token_usage SET tokens_used = 0, user_id = 'ample' WHERE session_id = %s",
                "DELETE FROM token_usage WHERE session_id = %s",
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

    @rule(seconds=st.sampled_from([0, 30, 60, 300]), most=st.sampled_from([0, 1, 2, 1000]))
    def reap(self, *, seconds: int, most: int) -> None:
        going_on = {session: self.times(session) for session, call in self.model.calls.items() if not call.ended}
        limit = timedelta(seconds=seconds)
        rows = self.ask("SELECT * FROM reap_stale_calls(%s, %s)", limit, most)
        clock = self.row("SELECT clock_timestamp()")[0]
        stale = {session for session, times in going_on.items() if times.clock - times.updated_at >= limit}
        perhaps = {session for session, times in going_on.items() if clock - times.updated_at >= limit}
        assert {row.session_id for row in rows} <= perhaps
        assert min(len(stale), most) <= len(rows) <= most
        for row in rows:
            call, times = self.model.calls[row.session_id], going_on[row.session_id]
            # A new call was last seen when its transaction began, which for all of this is the same one.
            assert row.end_time == max(times.updated_at, times.start_time)
            minutes = minutes_of(row.end_time - times.start_time)
            outcome = self.model.bill(row.session_id, minutes, row.status)
            assert (row.status, row.charged, row.shortfall) == outcome
            call.ended, call.reaped = True, True
            call.failed = row.status == "unsettled"
            call.settled = not call.failed

    @rule(most=st.sampled_from([0, 1, 1000]))
    def settle(self, *, most: int) -> None:
        rows = self.ask("SELECT * FROM settle_calls(%s)", most, role="service_role")
        unsettled = {session for session, call in self.model.calls.items() if call.ended and not call.settled}
        assert {row.session_id for row in rows} <= unsettled
        assert len(rows) == min(len(unsettled), most)
        for row in rows:
            call, times = self.model.calls[row.session_id], self.times(row.session_id)
            minutes = minutes_of(times.end_time - times.start_time)
            assert (row.status, row.charged, row.shortfall) == self.model.bill(row.session_id, minutes, row.status)
            call.failed = row.status == "unsettled"
            call.settled = not call.failed

    @precondition(lambda self: self.model.calls)
    @rule(number=st.integers(0, 5), seconds=spans())
    def delete_call(self, *, number: int, seconds: int) -> None:
        self.let_time_pass(seconds)
        session = self.session(number)
        call = self.model.calls[session]
        before = self.times(session)
        until = before.end_time or before.clock
        try:
            self.write("DELETE FROM call_sessions WHERE id = %s", str(session))
        except Failure as failure:
            assert str(failure) == NOT_NOW  # noqa: PT017 - the model is asked, too
            if not call.settled:
                assert self.model.bill(session, minutes_of(until - before.start_time), "unsettled")[0] == "unsettled"
                return
            raise
        if not call.settled:
            status = self.model.bill(session, minutes_of(until - before.start_time), "")[0]
            assert status != "unsettled"
        self.model.deleted[session] = sum(call.usage.values())
        del self.model.calls[session]

    @rule(
        mode=st.sampled_from(["voice", "video"]),
        turn=st.booleans(),
        rate=st.sampled_from([0, 1, 2, 7, 50, 400_000]),
        ahead=st.sampled_from([0, 90.9]),
    )
    def change_rate(self, *, mode: str, turn: bool, rate: int, ahead: float) -> None:
        self.ask(
            "INSERT INTO token_rates VALUES (%s, %s, clock_timestamp() + %s, %s)",
            mode,
            turn,
            timedelta(seconds=ahead),
            rate,
            role="service_role",
        )

    @rule(failing=st.sampled_from(["", "", "token_ledger", "token_usage"]))
    def fail(self, *, failing: Failing) -> None:
        self.model.failing = failing
        self.ask("SELECT set_config('test.failing', %s, true)", failing)

    @precondition(lambda self: self.model.calls)
    @rule(
        number=st.integers(0, 5),
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
                assert str(failure) in {BAD, TOO_MUCH, NO_ACCOUNT, CONFLICT, INJECTED, NOT_NOW}  # noqa: PT017 - what it comes to is nothing
        savepoint.rollback()

    # What holds after each of them.

    @invariant()
    def all_is_right(self) -> None:
        assert discrepancies(self.connection) == []
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
            "SELECT c.*, m.settled, m.reaped, m.has_incident FROM call_sessions AS c"
            " JOIN oblivion.call_meters AS m ON m.session_id = c.id"
        )
        assert {row.id for row in rows} == set(self.model.calls)
        for row in rows:
            call = self.model.calls[row.id]
            expected = (call.user, call.cost, call.ended, call.settled, call.reaped, call.failed)
            found = (row.user_id, row.credit_cost, row.end_time is not None, row.settled, row.reaped, row.has_incident)
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
        connection.execute(text("UPDATE call_sessions SET start_time = updated_at - :length"), {"length": length})
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
