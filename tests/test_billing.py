"""The token engine as it is documented, by example: in both modes, and through the roles that clients have."""

from __future__ import annotations

import inspect
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal, TypeVar, assert_type
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection, NullPool, Select, create_engine, delete, func, insert, select, text, update
from sqlalchemy.exc import DBAPIError
from support import API_ROLES, PROJECT

from oblivion_schema import balance_audit, billing, call_sessions, metadata, token_ledger, user_accounts
from oblivion_schema.billing import (
    CallMode,
    CallStatus,
    CreditStatus,
    QuoteStatus,
    call_quote,
    end_call,
    explain_call,
    reap_stale_calls,
    refund_call,
    set_call_turn,
    settle_calls,
    start_call,
    tick_call,
    top_up,
)
from oblivion_schema.errors import sqlstate
from oblivion_schema.tables.access import switch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine, Row, TypedColumns
    from sqlalchemy.sql.selectable import NamedFromClause

    Mode = Literal["open", "authenticated"]

pytestmark = pytest.mark.server

DOCUMENTATION = (PROJECT / "docs" / "billing.md").read_text(encoding="utf-8")
REFERENCE = (PROJECT / "docs" / "schema.md").read_text(encoding="utf-8")
Columns = TypeVar("Columns", bound="TypedColumns")

# What the engine must leave alone where it refuses, or where there is nothing to do.
STATE = """
SELECT
  (SELECT json_agg(a ORDER BY user_id) FROM user_accounts AS a),
  (SELECT json_agg(c ORDER BY id) FROM call_sessions AS c),
  (SELECT json_agg(u ORDER BY id) FROM token_usage AS u),
  (SELECT json_agg(l ORDER BY id) FROM token_ledger AS l),
  (SELECT json_agg(m ORDER BY session_id) FROM oblivion.call_meters AS m),
  (SELECT json_agg(s ORDER BY session_id, number) FROM oblivion.call_segments AS s),
  (SELECT json_agg(i ORDER BY id) FROM oblivion.billing_incidents AS i)
"""


@dataclass
class Client:
    """A transaction in one mode, as the owner or as a role that PostgREST takes for a request; it is rolled back."""

    connection: Connection
    mode: Mode
    role: str
    user: str | None = None

    def act(self, role: str, user: str | None = None) -> Client:
        """The same transaction, acting from now on as another."""
        self.connection.execute(text("RESET ROLE"))
        claims = json.dumps({"role": role} | ({"sub": user} if user else {}))
        self.connection.execute(text("SELECT set_config('request.jwt.claims', :claims, true)"), {"claims": claims})
        if role != "owner":
            self.connection.execute(text(f"SET LOCAL ROLE {role}"))
        return Client(self.connection, self.mode, role, user)

    def call(self, function: NamedFromClause[Columns]) -> Row[Any]:
        """The one row that a function returns to this client."""
        self.act(self.role, self.user)
        return self.connection.execute(select(function)).one()

    def rows(self, sql: str, **values: object) -> list[tuple[object, ...]]:
        """What a statement returns to this client."""
        self.act(self.role, self.user)
        return [tuple(row) for row in self.connection.execute(text(sql), values)]

    def run(self, sql: str, **values: object) -> int:
        """How many rows a statement of this client changes."""
        self.act(self.role, self.user)
        return self.connection.execute(text(sql), values).rowcount

    @property
    def owner(self) -> Client:
        """The same transaction as its owner."""
        return Client(self.connection, self.mode, "owner")

    @property
    def service(self) -> Client:
        """The same transaction as service_role."""
        return Client(self.connection, self.mode, "service_role")

    def refused(self, function: NamedFromClause[Columns], code: str, hint: str) -> None:
        """The function fails with that SQLSTATE and hint."""
        self.act(self.role, self.user)
        with pytest.raises(DBAPIError) as error, self.connection.begin_nested():
            self.connection.execute(select(function)).all()
        assert error.value.orig is not None
        said = getattr(error.value.orig, "diag", None)
        assert (sqlstate(error.value), getattr(said, "message_hint", None)) == (code, hint)

    def state(self) -> object:
        """All that the engine could have changed."""
        return self.owner.rows(STATE)

    def start(self, mode: CallMode = "video", *, used_turn: bool = False, user: str | None = "payer") -> UUID:
        """A new call's id."""
        call: UUID = self.call(start_call(user, "room", mode, used_turn=used_turn)).session_id
        return call

    def age(self, call: UUID, seconds: float, *, unseen: float = 0) -> None:
        """Let so many seconds pass, in the last of which, `unseen`, nothing was heard of the call."""
        self.owner.run("SET LOCAL session_replication_role = replica")
        self.owner.run(
            "UPDATE call_sessions SET start_time = start_time - make_interval(secs => :seconds) WHERE id = :call",
            seconds=seconds,
            call=call,
        )
        self.owner.run(
            "UPDATE oblivion.call_meters SET started_at = started_at - make_interval(secs => :seconds),"
            " seen_at = clock_timestamp() - make_interval(secs => :unseen) WHERE session_id = :call",
            seconds=seconds,
            unseen=unseen,
            call=call,
        )
        self.owner.run("SET LOCAL session_replication_role = origin")

    def balance(self, user: str = "payer") -> object:
        """What an account has left."""
        [(balance,)] = self.owner.rows("SELECT tokens_remaining FROM user_accounts WHERE user_id = :user", user=user)
        return balance

    def usage(self, call: UUID) -> list[tuple[object, ...]]:
        """What the log has of a call."""
        return self.owner.rows(
            "SELECT mode, used_turn, tokens_used, duration_seconds FROM token_usage WHERE session_id = :call"
            " ORDER BY timestamp",
            call=str(call),
        )

    def ledger(self, user: str = "payer") -> list[tuple[object, ...]]:
        """What the ledger has of an account after its opening."""
        return self.owner.rows(
            "SELECT kind, tokens, balance FROM token_ledger WHERE user_id = :user ORDER BY id OFFSET 1", user=user
        )

    def receipt(self, call: UUID) -> list[tuple[object, ...]]:
        """What explain_call() says, without the dates of the rates."""
        self.act(self.role, self.user)
        return [(*row[:6], *row[7:]) for row in self.connection.execute(select(explain_call(call)))]

    def is_sound(self) -> bool:
        """Whether each balance is the sum of its ledger."""
        return not self.owner.rows("SELECT FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0")


@pytest.fixture(scope="module")
def connected(shared_engine: Engine) -> Iterator[Connection]:
    """The one connection of this module's transactions."""
    with shared_engine.connect() as connection:
        yield connection


@pytest.fixture
def transaction(connected: Connection) -> Iterator[Callable[[Mode], Client]]:
    """Begin a transaction in one of the modes, with the account `payer` of 100 tokens."""

    def begin(mode: Mode) -> Client:
        if mode == "authenticated":
            connected.exec_driver_sql(switch(metadata, access=mode), execution_options={"no_parameters": True})
        client = Client(connected, mode, "owner")
        client.run("INSERT INTO user_accounts (user_id) VALUES ('payer'), ('other')")
        return client

    yield begin
    connected.rollback()


CALLERS: list[tuple[Mode, str, str | None]] = [
    ("open", "anon", None),
    ("open", "authenticated", "somebody else"),
    ("authenticated", "authenticated", "payer"),
    ("authenticated", "service_role", None),
    ("authenticated", "owner", None),
]


@pytest.fixture(params=CALLERS, ids=lambda caller: "-".join(map(str, caller[:2])))
def client(request: pytest.FixtureRequest, transaction: Callable[[Mode], Client]) -> Client:
    """Each that may act for `payer`."""
    mode, role, user = request.param
    return transaction(mode).act(role, user)


@pytest.fixture(params=["open", "authenticated"])
def both(request: pytest.FixtureRequest, transaction: Callable[[Mode], Client]) -> Client:
    """service_role, in both modes."""
    return transaction(request.param).service


@pytest.fixture
def opened(transaction: Callable[[Mode], Client]) -> Client:
    """A visitor, in the open mode."""
    return transaction("open").act("anon")


@pytest.fixture
def closed(transaction: Callable[[Mode], Client]) -> Client:
    """`payer`, signed in, in the authenticated mode."""
    return transaction("authenticated").act("authenticated", "payer")


# -- For Python callers


def test_each_function_types_its_rows() -> None:
    """Mypy fails where one of these types is another."""
    call = uuid4()
    for state in (start_call("u", "r", "video"), tick_call(call), set_call_turn(call, used_turn=True), end_call(call)):
        assert_type(
            select(state), Select[UUID, CallStatus, int, int, int | None, int | None, int | None, Decimal | None]
        )
        assert_type(select(state.c.balance), Select[int | None])
    assert_type(select(call_quote(None, "voice")), Select[QuoteStatus, int, datetime, int | None, int | None])
    assert_type(
        select(explain_call(call)),
        Select[int, Literal["video", "voice"], bool, int, int, int, datetime, int, int, int],
    )
    assert_type(select(top_up("u", 1, "k")), Select[str, int, str, Literal["ok", "known"], int])
    assert_type(select(refund_call(call, 1, "k")), Select[UUID, int, str, CreditStatus, int | None])
    assert_type(select(reap_stale_calls()), Select[UUID, CallStatus, int, int, datetime])
    assert_type(select(settle_calls()), Select[UUID, CallStatus, int, int])


def test_python_gets_the_types_that_it_was_told(both: Client) -> None:
    state = both.call(start_call("payer", "room", "video"))
    assert [type(value) for value in state] == [UUID, str, int, int, int, int, int, Decimal]
    quote = both.call(call_quote("payer", "video"))
    assert [type(value) for value in quote] == [str, int, datetime, int, int]
    both.age(state.session_id, 10, unseen=5)
    [reaped] = both.rows("SELECT * FROM reap_stale_calls('5 s')")
    assert [type(value) for value in reaped] == [UUID, str, int, int, datetime]
    assert tuple(both.call(refund_call(state.session_id, 1, "k"))) == (state.session_id, 1, "k", "ok", 99)


@pytest.mark.parametrize("driver", ["psycopg2", "psycopg"])
def test_other_drivers_bind_the_same_values(shared_engine: Engine, driver: str) -> None:
    engine = create_engine(shared_engine.url.set(drivername=f"postgresql+{driver}"), poolclass=NullPool)
    with engine.connect() as connection:
        call = connection.execute(select(start_call("demo_user", "room", "voice-only", client_key="a"))).one()
        assert (call.status, call.balance) == ("ok", 500)
        assert connection.execute(select(end_call(call.session_id))).one().charged == 1
        assert connection.execute(select(reap_stale_calls(timedelta(days=1), 3))).all() == []
        with pytest.raises(DBAPIError) as error:
            connection.execute(select(top_up("demo_user", 1 << 31, "k")))
        assert sqlstate(error.value) == "22003"


def test_functions_and_their_arguments_are_documented_as_they_are(both: Client) -> None:
    found = both.owner.rows(
        "SELECT proname::text, proargnames[1:pronargs] FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
        " AND prorettype <> 'trigger'::regtype AND proname NOT IN ('host_presence', 'page_billing', 'open_account')"
    )
    documented = re.findall(r"^\| `(\w+)\(([^`]+)\)` \|", REFERENCE, flags=re.MULTILINE)
    arguments = {name: [argument.split()[0] for argument in given.split(", ")] for name, given in documented}
    del arguments["host_presence"]
    assert [name for name in arguments if f"`{name}`" not in DOCUMENTATION] == []
    assert arguments == dict(found)  # type: ignore[arg-type]
    for name, names in arguments.items():
        assert list(inspect.signature(getattr(billing, name)).parameters) == names
    assert {name for name in billing.__all__ if name.islower()} == set(arguments)


# -- The life of a call


def test_call_is_started_ticked_and_ended(client: Client) -> None:
    quote = client.call(call_quote("payer", "video"))
    assert (quote.status, quote.tokens_per_minute, quote.balance, quote.minutes_left) == ("ok", 2, 100, 50)
    call = client.start()
    assert list(client.call(start_call("payer", "room", "video")))[1:] == ["ok", 0, 0, 100, 0, 50, 0]
    assert list(client.call(tick_call(call))) == [call, "ok", 2, 0, 98, 1, 49, 2]
    assert list(client.call(tick_call(call))) == [call, "ok", 0, 0, 98, 1, 49, 2]
    client.age(call, 60)
    assert list(client.call(end_call(call))) == [call, "ok", 2, 0, 96, 2, 48, 4]
    assert list(client.call(end_call(call))) == [call, "ended", 0, 0, 96, 2, None, 4]
    assert list(client.call(tick_call(call))) == [call, "ended", 0, 0, 96, 2, None, 4]
    assert client.usage(call) == [("video", False, 4, 60)]
    assert client.ledger() == [("charge", -2, 98), ("charge", -2, 96)]
    assert client.receipt(call) == [(1, "video", False, 1, 2, 2, 4, 4, 0)]
    assert client.is_sound()


@pytest.mark.parametrize(
    ("seconds", "minutes"), [(-60, 0), (0, 0), (1, 1), (59.999, 1), (60, 1), (60.001, 2), (61, 2), (3600, 60)]
)
def test_each_started_minute_counts(opened: Client, seconds: float, minutes: int) -> None:
    opened.owner.run("UPDATE user_accounts SET tokens_remaining = 1000 WHERE user_id = 'payer'")
    for mode, used_turn, rate in (("voice-only", False, 1), ("voice", True, 2), ("video", False, 2)):
        call = opened.start(mode, used_turn=used_turn)  # type: ignore[arg-type]
        opened.owner.run(
            "UPDATE call_sessions SET end_time = start_time + make_interval(secs => :seconds) WHERE id = :call",
            seconds=seconds,
            call=call,
        )
        [settled] = opened.service.rows("SELECT * FROM settle_calls()")
        assert settled == (call, "ok", minutes * rate, 0)
        assert sum(row[2] for row in opened.usage(call)) == minutes * rate  # type: ignore[misc]
    assert opened.is_sound()


def test_ticks_change_no_total(opened: Client) -> None:
    ticked, ended = opened.start(), opened.start()
    for _ in range(10):
        opened.age(ticked, 25)
        for _ in range(2):
            opened.call(tick_call(ticked))
    opened.age(ended, 250)
    states = [opened.call(end_call(call)) for call in (ticked, ended)]
    assert [state.credit_cost for state in states] == [10, 10]
    assert [opened.usage(call)[0][2] for call in (ticked, ended)] == [10, 10]


def test_minutes_from_a_turn_on_cost_the_other_rate(client: Client) -> None:
    call = client.start()
    client.age(call, 61)
    turned = client.call(set_call_turn(call, used_turn=True))
    assert list(turned) == [call, "ok", 4, 0, 96, 2, 16, 4]
    client.age(call, 60)
    assert list(client.call(tick_call(call)))[1:] == ["ok", 6, 0, 90, 3, 15, 10]
    assert list(client.call(set_call_turn(call, used_turn=True)))[1:] == ["ok", 0, 0, 90, 3, 15, 10]
    assert list(client.call(set_call_turn(call, used_turn=False)))[1:] == ["ok", 0, 0, 90, 3, 45, 10]
    client.age(call, 60)
    assert list(client.call(end_call(call)))[1:] == ["ok", 2, 0, 88, 4, 44, 12]
    assert client.receipt(call) == [
        (1, "video", False, 1, 2, 2, 4, 4, 0),
        (2, "video", True, 3, 1, 6, 6, 6, 0),
        (3, "video", False, 4, 1, 2, 2, 2, 0),
    ]
    assert [row[:3] for row in client.usage(call)] == [("video", False, 4), ("video", True, 6), ("video", False, 2)]
    assert client.owner.rows("SELECT used_turn, credit_cost FROM call_sessions WHERE id = :id", id=call) == [
        (False, 12)
    ]


def test_what_the_balance_does_not_cover_is_a_shortfall_for_good(client: Client) -> None:
    client.owner.run("UPDATE user_accounts SET tokens_remaining = 3 WHERE user_id = 'payer'")
    call = client.start()
    client.age(call, 61)
    assert list(client.call(tick_call(call)))[1:] == ["short", 3, 1, 0, 2, 0, 4]
    assert client.call(tick_call(call)).status == "ok"  # nothing new was due
    assert client.service.call(top_up("payer", 10, "k")).balance == 10
    client.age(call, 60)
    assert list(client.call(end_call(call)))[1:] == ["ok", 2, 0, 8, 3, 4, 6]
    assert client.receipt(call) == [(1, "video", False, 1, 3, 2, 6, 5, 1)]
    assert client.usage(call)[0][2] == 6
    assert client.ledger() == [("direct", -97, 3), ("charge", -3, 0), ("top_up", 10, 10), ("charge", -2, 8)]
    assert client.is_sound()


def test_call_starts_although_the_balance_covers_no_minute(client: Client) -> None:
    client.owner.run("UPDATE user_accounts SET tokens_remaining = 1 WHERE user_id = 'payer'")
    assert client.call(call_quote("payer", "video")).status == "short"
    state = client.call(start_call("payer", "room", "video"))
    assert (state.status, state.minutes_left) == ("short", 0)
    assert list(client.call(end_call(state.session_id)))[1:5] == ["short", 1, 1, 0]


@pytest.mark.parametrize("user", [None, "anonymous_1", "nobody"])
def test_who_has_no_account_is_not_billed_and_gets_none(both: Client, user: str | None) -> None:
    accounts = both.owner.rows("SELECT * FROM user_accounts")
    assert both.call(call_quote(user, "video")).status == "not_billed"
    call = both.call(start_call(user, "room", "video"))
    assert list(call)[1:] == ["not_billed", 0, 0, None, 0, None, 0]
    both.age(call.session_id, 61)
    for function in (tick_call, end_call):
        assert list(both.call(function(call.session_id)))[1:5] == ["not_billed", 0, 0, None]
    assert both.call(end_call(call.session_id)).status == "ended"
    assert both.usage(call.session_id) == []
    assert both.owner.rows("SELECT * FROM user_accounts") == accounts
    assert both.ledger(str(user)) == []


def test_account_of_an_anonymous_name_is_not_billed(both: Client) -> None:
    both.owner.run("INSERT INTO user_accounts (user_id) VALUES ('anonymous_1'), ('anonymousX1')")
    for user, status in (("anonymous_1", "not_billed"), ("anonymousX1", "ok")):
        assert both.call(end_call(both.start(user=user))).status == status


def test_account_that_is_opened_in_the_middle_pays_from_the_start(both: Client) -> None:
    call = both.start(user="late")
    both.age(call, 61)
    assert both.call(tick_call(call)).status == "not_billed"
    both.owner.run("INSERT INTO user_accounts (user_id) VALUES ('late')")
    assert list(both.call(tick_call(call)))[1:6] == ["ok", 4, 0, 96, 2]


def test_account_that_is_deleted_in_the_middle_pays_no_more(both: Client) -> None:
    call = both.start()
    assert both.call(tick_call(call)).charged == 2
    both.owner.run("DELETE FROM user_accounts WHERE user_id = 'payer'")
    both.age(call, 61)
    assert list(both.call(end_call(call)))[1:5] == ["not_billed", 0, 0, None]
    assert both.ledger() == [("charge", -2, 98), ("closing", -98, 0)]
    assert both.is_sound()


def test_call_keeps_the_rates_of_its_start(both: Client) -> None:
    call = both.start()
    both.age(call, 61)
    both.call(tick_call(call))
    for used_turn in (False, True):
        both.owner.run(
            "INSERT INTO token_rates VALUES ('video', :turn, clock_timestamp(), 50), ('voice', :turn, 'infinity', 9)",
            turn=used_turn,
        )
    assert both.call(call_quote("payer", "voice-only")).tokens_per_minute == 1
    assert list(both.call(set_call_turn(call, used_turn=True)))[6] == 16
    both.age(call, 60)
    assert both.call(end_call(call)).charged == 6
    later = both.call(start_call("payer", "room", "video"))
    assert later.minutes_left == 1
    assert both.call(end_call(later.session_id)).charged == 50


def test_rate_of_zero_leaves_minutes_without_end(both: Client) -> None:
    both.owner.run("INSERT INTO token_rates VALUES ('video', false, clock_timestamp(), 0)")
    call = both.call(start_call("payer", "room", "video"))
    assert (call.status, call.minutes_left) == ("ok", None)
    both.age(call.session_id, 61)
    assert list(both.call(end_call(call.session_id)))[1:] == ["ok", 0, 0, 100, 2, None, 0]
    assert both.receipt(call.session_id) == [(1, "video", False, 1, 2, 0, 0, 0, 0)]


def test_start_that_is_repeated_is_the_first_one(client: Client) -> None:
    key = '🎥 it\'s "one" \\ %s'
    first = client.call(start_call("payer", "room", "video", client_key=key))
    before = client.state()
    again = client.call(start_call("payer", "room", "video", client_key=key))
    assert (again.session_id, again.status, again.minutes_billed) == (first.session_id, "ok", None)
    client.refused(
        start_call("payer", "another room", "video", client_key=key),
        "23505",
        "Give each call a key of its own, such as a random UUID",
    )
    assert client.state() == before
    client.call(end_call(first.session_id))
    assert client.call(start_call("payer", "room", "video", client_key=key)).status == "ended"
    assert client.call(start_call(None, "room", "video", client_key=key)).session_id != first.session_id


# -- Maintenance


def test_call_that_went_stale_is_billed_to_when_it_was_last_seen(both: Client) -> None:
    call, seen = both.start(), both.start()
    both.age(call, 600, unseen=330)
    both.age(seen, 600, unseen=30)
    reaped = both.call(reap_stale_calls())
    assert tuple(reaped)[:4] == (call, "ok", 10, 0)
    [(last_seen, end)] = both.owner.rows(
        "SELECT end_time - start_time, end_time FROM call_sessions WHERE id = :id", id=call
    )
    assert reaped.end_time == end
    assert timedelta(seconds=270) <= last_seen < timedelta(seconds=275)  # type: ignore[operator]
    assert both.rows("SELECT * FROM reap_stale_calls()") == []


@pytest.mark.parametrize("late", [tick_call, lambda call: set_call_turn(call, used_turn=False), end_call])
def test_late_sign_of_life_revives_a_reaped_call_and_makes_up(
    both: Client, late: Callable[[UUID], NamedFromClause[Any]]
) -> None:
    call = both.start()
    both.age(call, 600, unseen=330)
    assert both.call(reap_stale_calls()).charged == 10
    assert list(both.call(late(call)))[1:7] == ["ok", 12, 0, 78, 11, 39]
    [(ended,)] = both.owner.rows("SELECT end_time IS NOT NULL FROM call_sessions WHERE id = :id", id=call)
    assert ended == (late is end_call)
    assert both.call(end_call(call)).status == ("ended" if late is end_call else "ok")
    assert both.call(end_call(call)).status == "ended"
    assert both.usage(call)[0][2] == 22


INJECTED = {
    "usage": (
        "ALTER TABLE token_usage ADD CONSTRAINT broken CHECK (tokens_used IS NULL) NOT VALID",
        "ALTER TABLE token_usage DROP CONSTRAINT broken",
    ),
    "ledger": (
        "ALTER TABLE token_ledger ADD CONSTRAINT broken CHECK (kind <> 'charge') NOT VALID",
        "ALTER TABLE token_ledger DROP CONSTRAINT broken",
    ),
}


@pytest.mark.parametrize("where", INJECTED)
def test_failure_of_billing_reaches_no_call_and_is_made_up_for(client: Client, where: str) -> None:
    fail, mend = INJECTED[where]
    call, going_on = client.start(), client.start()
    client.owner.run(fail)
    for each in (call, going_on):
        client.age(each, 61)
    # Of a segment that goes on there is no row of usage yet, so what fails is its end.
    unsettled = tick_call if where == "ledger" else lambda call: set_call_turn(call, used_turn=True)
    assert list(client.call(unsettled(going_on)))[1:6] == ["unsettled", 0, 0, None, None]
    for _ in range(2):  # who asks again lets it be tried again
        assert client.call(end_call(call)).status == "unsettled"
    [(ended,)] = client.owner.rows("SELECT end_time IS NOT NULL FROM call_sessions WHERE id = :id", id=call)
    assert ended
    assert (client.balance(), client.usage(call), client.ledger()) == (100, [], [])
    incidents = "SELECT action, error_code, attempts, resolved_at IS NULL FROM oblivion.billing_incidents ORDER BY id"
    first = "tick" if where == "ledger" else "turn"
    assert client.owner.rows(incidents) == [(first, "23514", 1, True), ("end", "23514", 2, True)]
    [settled] = client.service.rows("SELECT * FROM settle_calls()")
    assert settled == (call, "unsettled", 0, 0)
    client.owner.run(mend)
    [settled] = client.service.rows("SELECT * FROM settle_calls()")
    assert settled == (call, "ok", 4, 0)
    assert client.call(tick_call(going_on)).charged == 4
    assert client.owner.rows(incidents) == [(first, "23514", 1, False), ("settle", "23514", 3, False)]
    assert client.service.rows("SELECT * FROM settle_calls()") == []
    assert client.is_sound()


def test_call_that_costs_more_than_can_be_held_ends_and_is_not_charged(client: Client) -> None:
    call = client.start(used_turn=True)
    client.age(call, 365 * 86400)
    assert list(client.call(end_call(call)))[1:] == ["unsettled", 0, 0, None, None, None, 0]
    [(ended,)] = client.owner.rows("SELECT end_time IS NOT NULL FROM call_sessions WHERE id = :id", id=call)
    assert (ended, client.balance(), client.ledger(), client.usage(call)) == (True, 100, [], [])
    [(code, message)] = client.owner.rows("SELECT error_code, message FROM oblivion.billing_incidents")
    assert code == "22003"
    assert "The call would cost 315360" in str(message)
    client.owner.run("UPDATE call_sessions SET start_time = end_time - interval '61 s' WHERE id = :id", id=call)
    assert client.service.rows("SELECT status, charged FROM settle_calls()") == [("ok", 12)]


@pytest.mark.parametrize("timeout", ["0", "3s", "600ms"])
def test_account_that_another_transaction_holds_keeps_no_call_from_its_end(engine: Engine, timeout: str) -> None:
    with engine.connect() as holder, engine.connect() as client:
        client.execute(text(f"SET statement_timeout = '{timeout}'"))
        call = client.execute(select(start_call("demo_user", "room", "video"))).one().session_id
        client.commit()
        holder.execute(text("UPDATE user_accounts SET tokens_remaining = 400 WHERE user_id = 'demo_user'"))
        began = time.monotonic()
        assert client.execute(select(end_call(call))).one().status == "unsettled"
        client.commit()
        assert time.monotonic() - began < 10
        [(code, has_ended)] = client.execute(
            text(
                "SELECT i.error_code, c.end_time IS NOT NULL FROM oblivion.billing_incidents AS i"
                " JOIN call_sessions AS c ON c.id = i.session_id"
            )
        )
        assert (code, has_ended) == ("55P03", True)
        holder.commit()
        assert client.execute(select(settle_calls())).all() == [(call, "ok", 2, 0)]
        assert client.scalar(text("SHOW lock_timeout")) == "0"
        assert client.scalar(text("SELECT tokens_remaining FROM user_accounts WHERE user_id = 'demo_user'")) == 398


# -- Bad input


@pytest.mark.parametrize("mode", ["audio", "", "VIDEO", None, "'; DROP TABLE user_accounts"])
def test_unknown_mode_is_refused(client: Client, mode: Any) -> None:
    before = client.state()
    for function in (call_quote("payer", mode), start_call("payer", "room", mode)):
        client.refused(function, "22023", "Use video or voice-only")
    assert client.state() == before


def test_call_needs_a_room(client: Client) -> None:
    client.refused(start_call("payer", None, "video"), "22023", "Give room_id")  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", "x" * 201])
def test_key_of_another_length_is_refused(both: Client, key: str) -> None:
    call, hint = both.start(), "Give 1 to 200, such as a random UUID"
    both.call(tick_call(call))
    before = both.state()
    for function in (
        start_call("payer", "room", "video", client_key=key),
        top_up("payer", 1, key),
        refund_call(call, 1, key),
    ):
        both.refused(function, "22023", hint)
    assert both.state() == before


@pytest.mark.parametrize(
    "key", ["x" * 200, "🪙" * 200, 'it\'s "quoted" \\ $1 %s {}', " ", "two  words ", "\n", "refund"]
)
def test_key_of_any_content_makes_one_credit(both: Client, key: str) -> None:
    call = both.start()
    both.call(tick_call(call))
    assert list(both.call(top_up("payer", 5, key))) == ["payer", 5, key, "ok", 103]
    assert both.call(top_up("other", 1, key)).status == "ok"  # a key is its account's
    both.owner.run("UPDATE user_accounts SET tokens_remaining = 7 WHERE user_id = 'payer'")
    before = both.state()
    assert list(both.call(top_up("payer", 5, key))) == ["payer", 5, key, "known", 103]
    for other in (top_up("payer", 6, key), refund_call(call, 1, key)):
        both.refused(other, "23505", "Give each credit a key of its own")
    assert both.state() == before
    refund = f"refund {key}"[:200]
    assert list(both.call(refund_call(call, 1, refund))) == [call, 1, refund, "ok", 8]
    assert both.owner.rows(
        "SELECT kind, key, session_id FROM token_ledger WHERE user_id = 'payer' AND key IS NOT NULL ORDER BY id"
    ) == [("top_up", key, None), ("refund", refund, call)]
    assert both.is_sound()


@pytest.mark.parametrize("tokens", [None, 0, -1, -(1 << 31)])
def test_tokens_are_above_zero(both: Client, tokens: Any) -> None:
    call = both.start()
    both.call(tick_call(call))
    before = both.state()
    for function in (top_up("payer", tokens, "k"), refund_call(call, tokens, "k")):
        both.refused(function, "22023", "Give a number above zero")
    assert both.state() == before


def test_credit_needs_a_key_and_an_account(both: Client) -> None:
    hint = "Give each credit a key of its own, and each retry the same key"
    both.refused(top_up("payer", 1, None), "22023", hint)  # type: ignore[arg-type]
    for user in ("nobody", "", None):
        both.refused(top_up(user, 1, "k"), "23503", "Insert it into user_accounts first")  # type: ignore[arg-type]


def test_balance_beyond_an_integer_is_refused(both: Client) -> None:
    most = (1 << 31) - 1
    both.refused(top_up("payer", most - 99, "k"), "22003", "Give fewer tokens")
    assert both.call(top_up("payer", most - 100, "k")).balance == most
    both.refused(top_up("payer", 1, "k2"), "22003", "Give fewer tokens")
    assert both.is_sound()


def test_refund_gives_back_no_more_than_was_charged(both: Client) -> None:
    both.owner.run("UPDATE user_accounts SET tokens_remaining = 3 WHERE user_id = 'payer'")
    call = both.start()
    both.age(call, 61)
    assert both.call(end_call(call)).shortfall == 1
    hint = "explain_call() gives what was charged"
    both.refused(refund_call(call, 4, "a"), "22023", hint)
    assert both.call(refund_call(call, 2, "a")).balance == 2
    assert both.call(refund_call(call, 2, "a")).status == "known"
    both.refused(refund_call(call, 2, "b"), "22023", hint)
    assert both.call(refund_call(call, 1, "b")).balance == 3
    assert both.ledger()[-2:] == [("refund", 2, 2), ("refund", 1, 3)]
    assert both.receipt(call)[0][6:] == (4, 3, 1)  # the receipt stays
    unknown = uuid4()
    assert list(both.call(refund_call(unknown, 1, "c"))) == [unknown, 1, "c", "unknown", None]


@pytest.mark.parametrize("function", [tick_call, end_call, lambda call: set_call_turn(call, used_turn=True)])
def test_unknown_call_is_a_status(client: Client, function: Callable[[UUID | None], NamedFromClause[Any]]) -> None:
    before = client.state()
    for call in (uuid4(), None):
        assert list(client.call(function(call))) == [call, "unknown", 0, 0, None, None, None, None]
    assert client.receipt(uuid4()) == []
    assert client.state() == before


@pytest.mark.parametrize(
    ("argument", "value"), [("not_seen_for", timedelta(-1)), ("not_seen_for", None), ("max_calls", -1)]
)
def test_maintenance_takes_nothing_below_zero(both: Client, argument: str, value: Any) -> None:
    both.refused(
        reap_stale_calls(**{argument: value}), "22023", "Give intervals of zero or more, and a number above zero"
    )
    if argument == "max_calls":
        both.refused(settle_calls(value), "22023", "Give a number above zero")
        both.refused(settle_calls(None), "22023", "Give a number above zero")  # type: ignore[arg-type]


# -- Who may


@pytest.mark.parametrize("mode", ["open", "authenticated"])
@pytest.mark.parametrize("role", API_ROLES[:2])
def test_credits_and_maintenance_are_service_roles(
    transaction: Callable[[Mode], Client], mode: Mode, role: str
) -> None:
    client = transaction(mode).act(role, "payer")
    call = client.start()
    for function in (top_up("payer", 1, "k"), refund_call(call, 1, "k"), reap_stale_calls(), settle_calls()):
        client.refused(function, "42501", None)  # type: ignore[arg-type]


def test_signed_in_user_acts_for_nobody_else(closed: Client) -> None:
    theirs = closed.service.start(user="other")
    before = closed.state()
    for function in (tick_call(theirs), set_call_turn(theirs, used_turn=True), end_call(theirs)):
        assert list(closed.call(function)) == [theirs, "unknown", 0, 0, None, None, None, None]
    assert closed.receipt(theirs) == []
    quote = closed.call(call_quote("other", "video"))
    assert (quote.status, quote.balance, quote.minutes_left) == ("unknown", None, None)
    closed.refused(
        start_call("other", "room", "video"), "42501", "Give the signed-in user as user_id, or NULL for a visitor"
    )
    assert closed.state() == before


def test_visitor_acts_for_a_call_of_no_user_by_its_id(closed: Client) -> None:
    visitor = closed.act("anon")
    for user in (None, "anonymous_7"):
        call = visitor.start(user=user)
        assert visitor.call(end_call(call)).status == "not_billed"
    visitor.refused(
        start_call("payer", "room", "video"), "42501", "Give the signed-in user as user_id, or NULL for a visitor"
    )


# -- Old clients beside it


CALL_COLUMNS = (
    "id", "room_id", "start_time", "end_time", "mode",
    "used_turn", "credit_cost", "user_id", "created_at", "updated_at",
)  # fmt: skip


@pytest.mark.parametrize("role", API_ROLES)
def test_old_clients_flow_is_what_it_was(transaction: Callable[[Mode], Client], role: str) -> None:
    client = transaction("open").act(role)
    clock = datetime.now(UTC) - timedelta(days=1)
    [(call,)] = client.rows(
        "INSERT INTO call_sessions (room_id, user_id, mode, used_turn, start_time, credit_cost)"
        " VALUES ('room', 'payer', 'voice-only', false, :clock, 0) RETURNING id",
        clock=clock,
    )
    returned = client.connection.execute(
        text(
            "UPDATE call_sessions SET end_time = :end, used_turn = true, credit_cost = 0.4 WHERE id = :id RETURNING *"
        ),
        {"id": call, "end": clock + timedelta(seconds=61)},
    )
    assert tuple(returned.keys()) == CALL_COLUMNS
    ended = returned.one()
    assert (ended.start_time, ended.end_time - clock, ended.used_turn) == (clock, timedelta(seconds=61), True)
    assert ended.credit_cost == Decimal("0.4")
    client.run("UPDATE user_accounts SET tokens_remaining = 96 WHERE user_id = 'payer'")
    client.run(
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)"
        " VALUES ('payer', :id, 4, 'voice', true, 61)",
        id=str(call),
    )
    assert client.ledger() == [("direct", -4, 96)]
    assert client.run("UPDATE token_usage SET tokens_used = 5 WHERE session_id = :id", id=str(call)) == 1
    assert client.run("DELETE FROM token_usage WHERE session_id = :id", id=str(call)) == 1
    assert client.run("DELETE FROM call_sessions WHERE id = :id", id=call) == 1
    assert client.is_sound()


def test_call_of_an_old_client_is_ended_and_not_billed(client: Client) -> None:
    call = uuid4()
    client.owner.run(
        "INSERT INTO call_sessions (id, room_id, user_id, mode) VALUES (:id, 'room', 'payer', 'video')", id=call
    )
    assert list(client.call(tick_call(call))) == [call, "not_billed", 0, 0, None, None, None, None]
    assert client.call(set_call_turn(call, used_turn=True)).status == "not_billed"
    assert client.call(end_call(call)).status == "not_billed"
    assert client.call(end_call(call)).status == "ended"
    assert client.receipt(call) == []
    assert (client.balance(), client.usage(call)) == (100, [])
    assert client.service.call(refund_call(call, 1, "k")).status == "unknown"


def test_sign_in_that_resets_a_balance_is_in_the_ledger(opened: Client) -> None:
    opened.call(end_call(opened.start()))
    upsert = (
        "INSERT INTO user_accounts (user_id, email, tokens_remaining) VALUES (:user, 'e', 100) ON CONFLICT (user_id)"
        " DO UPDATE SET user_id = excluded.user_id, email = excluded.email, tokens_remaining = 100 RETURNING *"
    )
    for _ in range(2):
        assert opened.rows(upsert, user="payer")[0][:2] == ("payer", 100)
    opened.rows(upsert, user="new")
    assert opened.ledger() == [("charge", -2, 98), ("direct", 2, 100)]
    assert opened.owner.rows("SELECT kind, tokens FROM token_ledger WHERE user_id = 'new'") == [("opening", 100)]
    assert opened.is_sound()


@pytest.mark.parametrize("role", API_ROLES)
def test_direct_update_of_a_metered_call_changes_nothing_of_its_price(
    transaction: Callable[[Mode], Client], role: str
) -> None:
    client = transaction("open").act(role)
    call = client.start()
    client.call(tick_call(call))
    kept = f"SELECT {', '.join(set(CALL_COLUMNS) - {'updated_at', 'room_id'})} FROM call_sessions WHERE id = :id"
    before = client.owner.rows(kept, id=call)
    assert (
        client.run(
            "UPDATE call_sessions SET room_id = 'other room', mode = 'voice-only', used_turn = true, credit_cost = 0,"
            " user_id = 'other', start_time = now() + interval '1 day', created_at = now() WHERE id = :id",
            id=call,
        )
        == 1
    )
    assert client.owner.rows(kept, id=call) == before


@pytest.mark.parametrize("role", API_ROLES)
@pytest.mark.parametrize("clock", [timedelta(days=-1), timedelta(days=1)])
def test_direct_end_of_a_metered_call_is_end_call_whatever_the_clients_clock(
    transaction: Callable[[Mode], Client], role: str, clock: timedelta
) -> None:
    client = transaction("open").act(role)
    call = client.start()
    client.age(call, 61)
    [row] = client.rows(
        "UPDATE call_sessions SET end_time = now() + :clock, used_turn = true, credit_cost = 0.4 WHERE id = :id"
        " RETURNING end_time - start_time < interval '90 s', used_turn, credit_cost",
        clock=clock,
        id=call,
    )
    assert row == (True, False, 4)
    assert (client.balance(), client.ledger()) == (96, [("charge", -4, 96)])
    assert client.call(end_call(call)).status == "ended"
    assert client.run("UPDATE call_sessions SET end_time = NULL WHERE id = :id", id=call) == 1
    assert client.call(tick_call(call)).status == "ended"
    assert client.usage(call) == [("video", False, 4, 61)]


@pytest.mark.parametrize("role", ["owner", *API_ROLES])
def test_metered_call_is_billed_before_it_is_deleted(transaction: Callable[[Mode], Client], role: str) -> None:
    client = transaction("open").act(role)
    call = client.start()
    client.age(call, 61)
    assert client.run("DELETE FROM call_sessions WHERE id = :id", id=call) == 1
    assert client.ledger() == [("charge", -4, 96)]
    assert client.call(end_call(call)).status == "unknown"
    assert client.usage(call) == [("video", False, 4, 61)]


def test_call_that_cannot_be_billed_cannot_be_deleted(opened: Client) -> None:
    call = opened.start()
    opened.owner.run(INJECTED["usage"][0])
    opened.act("anon")
    with pytest.raises(DBAPIError) as error, opened.connection.begin_nested():
        opened.connection.execute(text("DELETE FROM call_sessions WHERE id = :id"), {"id": call})
    assert sqlstate(error.value) == "55000"


@pytest.mark.parametrize("role", ["owner", "anon"])
def test_account_that_is_deleted_or_renamed_is_closed_in_the_ledger(opened: Client, role: str) -> None:
    client = opened.act(role)
    client.call(end_call(client.start()))
    client.run("UPDATE user_accounts SET user_id = 'renamed' WHERE user_id = 'other'")
    client.run("DELETE FROM user_accounts WHERE user_id IN ('renamed', 'payer')")
    assert client.ledger() == [("charge", -2, 98), ("closing", -98, 0)]
    assert client.ledger("other") == [("closing", -100, 0)]
    assert client.ledger("renamed") == [("closing", -100, 0)]
    assert client.is_sound()


def test_accounts_that_are_truncated_are_closed_in_the_ledger(opened: Client) -> None:
    opened.call(end_call(opened.start()))
    opened.owner.run("TRUNCATE user_accounts CASCADE")
    assert opened.ledger() == [("charge", -2, 98), ("closing", -98, 0)]
    assert opened.is_sound()
    opened.owner.run("INSERT INTO user_accounts (user_id) VALUES ('payer')")
    assert opened.ledger()[-1] == ("opening", 100, 100)
    assert opened.is_sound()


@pytest.mark.parametrize("mode", ["open", "authenticated"])
@pytest.mark.parametrize("role", API_ROLES)
def test_ledger_is_written_by_nobody(transaction: Callable[[Mode], Client], mode: Mode, role: str) -> None:
    client = transaction(mode).act(role, "payer")
    for sql in (
        "INSERT INTO token_ledger (user_id, kind, tokens, balance) VALUES ('payer', 'top_up', 1, 1)",
        "UPDATE token_ledger SET tokens = 0",
        "DELETE FROM token_ledger",
        "TRUNCATE token_ledger",
    ):
        with pytest.raises(DBAPIError) as error, client.connection.begin_nested():
            client.connection.execute(text(sql))
        assert sqlstate(error.value) == "42501"


def test_owner_trims_the_ledger_to_what_it_comes_to(opened: Client) -> None:
    opened.call(end_call(opened.start()))
    opened.service.call(top_up("payer", 5, "k"))
    assert opened.owner.rows("SELECT oblivion.trim_ledger(clock_timestamp())") == [(2,)]
    assert opened.owner.rows("SELECT kind, tokens, balance FROM token_ledger WHERE user_id = 'payer'") == [
        ("carried", 103, 103)
    ]
    assert opened.is_sound()
    opened.call(end_call(opened.start()))
    assert opened.ledger() == [("charge", -2, 101)]
    assert opened.is_sound()


def charged_minutes(client: Client, call: UUID, minutes: int) -> None:
    """Let a call be charged that many minutes, each by a tick."""
    for _ in range(minutes):
        client.age(call, 60)
        assert client.call(tick_call(call)).charged > 0


FOLD = "SELECT oblivion.fold_charges(clock_timestamp())"


def test_owner_folds_the_charges_of_a_call_that_is_over(opened: Client) -> None:
    call = opened.start()
    charged_minutes(opened, call, 3)
    assert opened.ledger() == [("charge", -4, 96), ("charge", -2, 94), ("charge", -2, 92)]
    assert opened.owner.rows(FOLD) == [(0,)]
    opened.call(end_call(call))
    receipt = opened.receipt(call)
    assert opened.owner.rows(FOLD) == [(2,)]
    assert opened.owner.rows(FOLD) == [(0,)]
    assert opened.ledger() == [("charge", -8, 92)]
    assert opened.receipt(call) == receipt
    opened.service.refused(refund_call(call, 9, "k"), "22023", "explain_call() gives what was charged")
    assert opened.service.call(refund_call(call, 8, "k")).balance == 100
    assert opened.is_sound()


def test_folding_changes_no_answer_that_was_given(opened: Client) -> None:
    call, other = opened.start(), opened.start()
    for charged in (call, other, call):
        charged_minutes(opened, charged, 1)
    credit = opened.service.call(top_up("payer", 5, "k"))
    charged_minutes(opened, call, 2)
    opened.call(end_call(call))
    assert opened.owner.rows(FOLD) == [(2,)]
    assert opened.ledger() == [
        ("charge", -4, 96),  # of the other call, which goes on
        ("charge", -6, 90),
        ("top_up", 5, 95),
        ("charge", -4, 91),
    ]
    assert opened.service.call(top_up("payer", 5, "k")).balance == credit.balance == 95
    assert opened.is_sound()


def test_revived_call_is_folded_again(opened: Client) -> None:
    call = opened.start()
    charged_minutes(opened, call, 2)
    opened.owner.call(reap_stale_calls(timedelta(0)))
    assert opened.owner.rows(FOLD) == [(1,)]
    charged_minutes(opened, call, 2)
    assert opened.owner.rows(FOLD) == [(0,)]
    opened.call(end_call(call))
    assert opened.owner.rows(FOLD) == [(2,)]
    assert opened.ledger() == [("charge", -10, 90)]
    assert opened.is_sound()


def test_deleted_call_is_folded(opened: Client) -> None:
    call = opened.start()
    charged_minutes(opened, call, 2)
    opened.run("DELETE FROM call_sessions WHERE id = :call", call=call)
    assert opened.owner.rows(FOLD) == [(1,)]
    assert opened.ledger() == [("charge", -6, 94)]
    assert opened.is_sound()


def test_account_that_was_opened_again_is_folded_on_both_sides(opened: Client) -> None:
    call = opened.start()
    charged_minutes(opened, call, 2)
    opened.owner.run("DELETE FROM user_accounts WHERE user_id = 'payer'")
    opened.owner.run("INSERT INTO user_accounts (user_id) VALUES ('payer')")
    charged_minutes(opened, call, 2)
    opened.call(end_call(call))
    assert opened.owner.rows(FOLD) == [(2,)]
    assert opened.ledger() == [("charge", -6, 94), ("closing", -94, 0), ("opening", 100, 100), ("charge", -4, 96)]
    assert opened.is_sound()


def test_turn_has_to_be_said(client: Client) -> None:
    call = client.start()
    before = client.state()
    client.refused(set_call_turn(call, used_turn=None), "22023", "Give true or false")  # type: ignore[arg-type]
    assert client.state() == before


def test_clock_set_back_prices_no_minute_anew(both: Client) -> None:
    call = both.start()
    both.age(call, 179)
    assert both.call(tick_call(call)).charged == 6
    both.age(call, -179)
    both.call(set_call_turn(call, used_turn=True))
    both.age(call, 179)
    assert both.call(end_call(call)).credit_cost == 6


def test_who_is_anonymous_does_not_hang_on_a_setting_of_strings(both: Client) -> None:
    both.owner.run("INSERT INTO user_accounts (user_id) VALUES ('anonymousX')")
    if both.rows("SELECT WHERE current_setting('server_version_num')::integer < 190000"):  # 19 refuses it
        both.run("SET LOCAL standard_conforming_strings = off")
    call = both.start(user="anonymousX")
    both.age(call, 61)
    assert both.call(end_call(call)).charged == 4


def test_call_that_cannot_be_billed_keeps_no_other_from_it(both: Client) -> None:
    spoilt, sound = both.start(user="other"), both.start()
    both.age(sound, 61)
    both.owner.run("UPDATE call_sessions SET start_time = '-infinity' WHERE id = :id", id=spoilt)
    assert {row[0]: row[1] for row in both.rows("SELECT * FROM reap_stale_calls('0 s')")} == {
        spoilt: "unsettled",
        sound: "ok",
    }
    assert both.owner.rows("SELECT action FROM oblivion.billing_incidents WHERE session_id = :id", id=spoilt) == [
        ("reap",)
    ]


def test_what_the_owner_writes_as_a_calls_cost_is_overwritten(both: Client) -> None:
    call = both.start()
    both.owner.run("UPDATE call_sessions SET credit_cost = 'NaN' WHERE id = :id", id=call)
    assert both.call(tick_call(call)).credit_cost == 2
    assert both.call(end_call(call)).credit_cost == 2
    assert both.owner.rows("SELECT credit_cost FROM call_sessions WHERE id = :id", id=call) == [(2,)]


def test_owner_corrects_the_start_and_the_payer_of_a_call(both: Client) -> None:
    call = both.start()
    both.owner.run(
        "UPDATE call_sessions SET start_time = start_time - interval '61 s', user_id = 'other' WHERE id = :id", id=call
    )
    assert list(both.call(tick_call(call)))[1:6] == ["ok", 4, 0, 96, 2]
    assert (both.balance(), both.balance("other")) == (100, 96)


@pytest.mark.parametrize("also", [tick_call, end_call, lambda call: set_call_turn(call, used_turn=True)])
def test_call_that_the_owner_ends_is_ended_and_billed_to_its_end(
    both: Client, also: Callable[[UUID], NamedFromClause[Any]]
) -> None:
    call = both.start()
    both.call(tick_call(call))
    both.age(call, 600)
    both.owner.run("UPDATE call_sessions SET end_time = start_time + interval '61 s' WHERE id = :id", id=call)
    state = both.call(also(call))
    if also is end_call:  # it settles the call
        assert (state.status, state.charged) == ("ok", 2)
    else:
        assert (state.status, state.charged, both.balance()) == ("ended", 0, 98)
        assert both.rows("SELECT * FROM settle_calls()") == [(call, "ok", 2, 0)]
    assert both.owner.rows("SELECT end_time - start_time FROM call_sessions WHERE id = :id", id=call) == [
        (timedelta(seconds=61),)
    ]
    assert (both.balance(), both.usage(call)) == (96, [("video", False, 4, 61)])


def test_owner_makes_a_call_anonymous_and_nobody_pays_from_then_on(both: Client) -> None:
    both.owner.run("INSERT INTO user_accounts (user_id) VALUES ('anonymous_9')")
    call = both.start()
    both.call(tick_call(call))
    both.owner.run("UPDATE call_sessions SET user_id = 'anonymous_9' WHERE id = :id", id=call)
    both.age(call, 61)
    assert both.call(tick_call(call)).status == "not_billed"
    assert (both.balance(), both.balance("anonymous_9")) == (98, 100)


def test_call_without_a_finite_start_hides_no_other(both: Client) -> None:
    spoilt, sound = both.start(user="other"), both.start()
    both.owner.run("UPDATE call_sessions SET start_time = '-infinity' WHERE id = :id", id=spoilt)
    live = both.owner.rows("SELECT session_id, minutes_billed FROM oblivion.live_calls")
    assert set(live) == {(spoilt, None), (sound, 0)} | {row for row in live if row[0] not in {spoilt, sound}}
    assert both.receipt(spoilt) == [(1, "video", False, 1, 0, 2, 0, 0, 0)]


@pytest.mark.parametrize("rate", [0, 2])
def test_no_minute_is_billed_before_a_start_that_lies_ahead(both: Client, rate: int) -> None:
    both.owner.run("INSERT INTO token_rates VALUES ('video', false, clock_timestamp(), :rate)", rate=rate)
    call = both.start()
    both.owner.run("UPDATE call_sessions SET start_time = now() + interval '10 minutes' WHERE id = :id", id=call)
    assert [both.call(function(call)).minutes_billed for function in (tick_call, end_call)] == [0, 0]
    assert both.balance() == 100


HANG_UP = """
CREATE FUNCTION pg_temp.hang_up() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.tokens_remaining < 2 THEN
    UPDATE public.call_sessions SET end_time = clock_timestamp() WHERE user_id = NEW.user_id AND end_time IS NULL;
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER hang_up AFTER UPDATE ON user_accounts FOR EACH ROW EXECUTE FUNCTION pg_temp.hang_up()
"""


def test_trigger_of_the_owner_that_ends_a_call_ends_it(both: Client) -> None:
    both.owner.run("UPDATE user_accounts SET tokens_remaining = 3 WHERE user_id = 'payer'")
    both.owner.run(HANG_UP)
    call = both.start()
    assert both.call(tick_call(call)).charged == 2
    both.owner.run("SET LOCAL oblivion.reason = 'top_up'")  # as a script labels what it writes
    both.age(call, 600)
    assert both.call(tick_call(call)).status == "ended"
    assert both.balance() == 1


@pytest.mark.parametrize("does", ["RETURN NULL", "NEW.tokens_remaining := OLD.tokens_remaining - 1; RETURN NEW"])
def test_trigger_of_the_owner_that_changes_a_balance_leaves_a_call_unsettled(both: Client, does: str) -> None:
    call, ended = both.start(), both.start()
    both.call(end_call(ended))
    both.owner.run(
        f"CREATE FUNCTION pg_temp.swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does}; END $$;"
        " CREATE TRIGGER a BEFORE UPDATE ON user_accounts FOR EACH ROW EXECUTE FUNCTION pg_temp.swallow();"
        " UPDATE oblivion.call_meters SET is_plain = false"
    )
    assert both.call(end_call(call)).status == "unsettled"
    assert (both.balance(), both.ledger()) == (98, [("charge", -2, 98)])
    hint = "Let it leave tokens_remaining alone"
    both.refused(top_up("payer", 5, "k"), "27000", hint)
    both.refused(refund_call(ended, 1, "k"), "27000", hint)
    both.owner.run("DROP TRIGGER a ON user_accounts")
    assert both.rows("SELECT * FROM settle_calls()") == [(call, "ok", 2, 0)]


def test_call_that_the_owner_reopens_goes_on(both: Client) -> None:
    call = both.start()
    both.call(end_call(call))
    both.owner.run("UPDATE call_sessions SET end_time = NULL WHERE id = :id", id=call)
    assert len(both.owner.rows("SELECT FROM oblivion.live_calls WHERE session_id = :id", id=call)) == 1
    both.age(call, 600, unseen=330)
    assert both.rows("SELECT session_id, charged FROM reap_stale_calls()") == [(call, 8)]
    assert both.usage(call)[0][2] == 10


@pytest.mark.parametrize("write", ["end_time = 'infinity'", "start_time = '-infinity', end_time = now()"])
def test_call_that_has_no_length_has_ended_all_the_same(both: Client, write: str) -> None:
    call = both.start()
    both.owner.run(f"UPDATE call_sessions SET {write} WHERE id = :id", id=call)
    assert list(both.call(tick_call(call)))[1:6] == ["ended", 0, 0, 100, None]


# -- What goes on


def test_tick_writes_the_meter_the_account_and_the_ledger_alone(client: Client) -> None:
    call = client.start()
    kept = (
        "SELECT (SELECT xmin || ctid::text FROM call_sessions WHERE id = :id), (SELECT count(*) FROM token_usage),"
        " (SELECT count(*) FROM oblivion.usage_deltas), (SELECT count(*) FROM oblivion.call_deltas)"
    )
    for balance in (98, 96, 94):
        before = client.owner.rows(kept, id=call)
        assert client.call(tick_call(call)).balance == balance
        assert client.owner.rows(kept, id=call) == before
        client.age(call, 60)
    assert client.ledger() == [("charge", -2, balance) for balance in (98, 96, 94)]
    assert client.owner.rows("SELECT credit_cost FROM call_sessions WHERE id = :id", id=call) == [(0,)]


def test_live_calls_say_what_goes_on(client: Client) -> None:
    call, free = client.start(), client.start(user=None)
    client.owner.run("UPDATE user_accounts SET tokens_remaining = 9 WHERE user_id = 'payer'")
    client.age(call, 61)
    client.call(set_call_turn(call, used_turn=True))
    client.age(call, 60)
    client.call(tick_call(call))
    live = "SELECT * FROM oblivion.live_calls WHERE session_id = :id"
    assert client.owner.rows(live, id=call) == [(call, "short", 9, 1, 0, 3, 0, 10)]
    assert client.owner.rows(live, id=free) == [(free, "not_billed", 0, 0, None, 0, None, 0)]
    # Of the segment that is over there is a row; the rest is in the meter.
    assert [row[:3] for row in client.usage(call)] == [("video", False, 4)]
    assert [row[6:] for row in client.receipt(call)] == [(4, 4, 0), (6, 5, 1)]
    client.call(end_call(call))
    assert client.owner.rows(live, id=call) == []
    assert [row[:3] for row in client.usage(call)] == [("video", False, 4), ("video", True, 6)]


def test_account_that_somebody_holds_keeps_no_other_from_being_reaped(shared_engine: Engine) -> None:
    held, free = f"held {uuid4()}", f"free {uuid4()}"
    with shared_engine.begin() as owner:
        owner.execute(insert(user_accounts), [{"user_id": held}, {"user_id": free}])
        calls = {
            user: owner.execute(select(start_call(user, "room", "video"))).one().session_id for user in (free, held)
        }
        calls["also held"] = owner.execute(select(start_call(held, "room", "video"))).one().session_id
    try:
        with shared_engine.connect() as holder, shared_engine.connect() as reaper:
            holder.execute(select(user_accounts).where(user_accounts.c.user_id == held).with_for_update())
            reaped = {row.session_id for row in reaper.execute(select(reap_stale_calls(timedelta(0))))}
            assert reaped & set(calls.values()) == {calls[free]}
            reaper.rollback()
    finally:
        with shared_engine.begin() as owner:
            owner.execute(delete(call_sessions).where(call_sessions.c.id.in_(calls.values())))
            owner.execute(delete(user_accounts).where(user_accounts.c.user_id.in_((held, free))))


def test_ledger_is_trimmed_by_one_at_a_time(shared_engine: Engine) -> None:
    user = f"trimmed {uuid4()}"

    def take(tokens: int) -> datetime:
        with shared_engine.begin() as owner:
            owner.execute(
                update(user_accounts)
                .where(user_accounts.c.user_id == user)
                .values(tokens_remaining=user_accounts.c.tokens_remaining - tokens)
            )
            moment: datetime = owner.execute(select(func.clock_timestamp())).scalar_one()
            return moment

    with shared_engine.begin() as owner:
        owner.execute(insert(user_accounts).values(user_id=user))
    first, second = take(10), take(20)
    with shared_engine.connect() as early, ThreadPoolExecutor() as other:
        early.execute(select(func.oblivion.trim_ledger(first)))

        def trim_late() -> None:
            with shared_engine.begin() as late:
                late.execute(select(func.oblivion.trim_ledger(second)))

        waiting = other.submit(trim_late)
        with pytest.raises(TimeoutError):
            waiting.result(0.5)
        early.commit()
        waiting.result(10)
    with shared_engine.connect() as owner:
        audit = select(balance_audit.c.balance, balance_audit.c.drift, balance_audit.c.gaps)
        assert owner.execute(audit.where(balance_audit.c.user_id == user)).one() == (70, 0, 0)
        kinds = select(token_ledger.c.kind).where(token_ledger.c.user_id == user)
        assert owner.execute(kinds).scalars().all() == ["carried"]
