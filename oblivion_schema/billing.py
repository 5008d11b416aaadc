"""The token engine for Python callers: each of its functions as something to select from, with typed columns.

    with engine.begin() as connection:
        call = connection.execute(select(start_call("ada", "lobby", "video"))).one()
        ...
        ended = connection.execute(select(end_call(call.session_id))).one()

The work is done in the database, when the statement is executed, and it is done once the transaction commits. Until
then what it has locked stays locked: the call, and the account that pays. So let a transaction be one call of a
function, or as short.

Tokens are whole ones. Minutes are started minutes, by the server's clock. In the open mode every role may call the
functions of calls; in the authenticated mode a signed-in user does so for the own calls, and whoever knows the id of
a call of no user, or of a user `anonymous_...`, for that one. `top_up`, `refund_call`, `reap_stale_calls` and
`settle_calls` are the owner's and service_role's in both. Who may not execute a function gets SQLSTATE 42501; arguments
that it cannot take are 22023, whose hint says what to give. What went wrong changed nothing.

`status` says how a call of a function went:

- ok: done, and paid.
- short: done, but the balance did not cover what was due; nobody is asked for the rest later.
- not_billed: nobody pays. The call has no user, one named `anonymous_...`, or one without an account; or an old client
  started it, which bills it by itself.
- unsettled: the call goes on, or has ended, but its billing failed; its next tick, or `settle_calls`, makes up for it.
- ended: the call had ended before; nothing was changed.
- unknown: there is no such call, or it is not the caller's.
- known: this credit was made before, by the same key; the answer is the one of then.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar
from uuid import UUID

from sqlalchemy import (
    Boolean,
    Column,
    Integer,
    Interval,
    MetaData,
    Named,
    Numeric,
    Table,
    Text,
    TypedColumns,
    Uuid,
    cast,
    column,
    func,
)

from oblivion_schema.tables.base import Timestamp

if TYPE_CHECKING:
    from sqlalchemy import ColumnClause
    from sqlalchemy.sql.selectable import NamedFromClause
    from sqlalchemy.types import TypeEngine

__all__ = [
    "CallMode",
    "CallStatus",
    "CreditStatus",
    "QuoteStatus",
    "call_quote",
    "end_call",
    "explain_call",
    "reap_stale_calls",
    "refund_call",
    "set_call_turn",
    "settle_calls",
    "start_call",
    "tick_call",
    "top_up",
]

CallMode: TypeAlias = Literal["video", "voice-only", "voice"]
"""What is called: voice is token_usage's word for a voice-only call, and means the same here."""
CallStatus: TypeAlias = Literal["ok", "short", "not_billed", "unsettled", "ended", "unknown"]
QuoteStatus: TypeAlias = Literal["ok", "short", "not_billed", "unknown"]
CreditStatus: TypeAlias = Literal["ok", "known", "unknown"]

# To a type checker a column of Text holds any str.
_STATUS: Any = Text


class CallStateColumns(TypedColumns):
    """How a call stands. Columns of start_call, tick_call, set_call_turn and end_call."""

    session_id: Named[UUID] = Column(Uuid, comment="The call.")
    status: Named[CallStatus] = Column(_STATUS, comment="How it went.")
    charged: Named[int] = Column(Integer, comment="Tokens that were taken, this time.")
    shortfall: Named[int] = Column(Integer, comment="Tokens that were due while the balance did not cover them.")
    balance: Named[int | None] = Column(Integer, comment="Tokens that are left; NULL where nobody pays.")
    minutes_billed: Named[int | None] = Column(Integer, comment="Started minutes of the call that are billed.")
    minutes_left: Named[int | None] = Column(
        Integer, comment="Whole minutes that the balance covers at the call's rate; NULL at a rate of zero, too."
    )
    credit_cost: Named[Decimal | None] = Column(Numeric(10, 4), comment="Tokens due since the call's start.")
    __row_pos__: tuple[UUID, CallStatus, int, int, int | None, int | None, int | None, Decimal | None]


class CallQuoteColumns(TypedColumns):
    """What a call would cost. Columns of call_quote."""

    status: Named[QuoteStatus] = Column(_STATUS, comment="Whether the balance covers a minute, and whether one pays.")
    tokens_per_minute: Named[int] = Column(Integer, comment="Tokens for each started minute.")
    rate_from: Named[datetime] = Column(Timestamp, comment="The date of that rate.")
    balance: Named[int | None] = Column(Integer, comment="Tokens that the account has; NULL where there is none.")
    minutes_left: Named[int | None] = Column(Integer, comment="Whole minutes that it covers; NULL at a rate of zero.")
    __row_pos__: tuple[QuoteStatus, int, datetime, int | None, int | None]


class CallSegmentColumns(TypedColumns):
    """A span of a call at one rate. Columns of explain_call."""

    segment: Named[int] = Column(Integer, comment="From 1, in the call's order.")
    mode: Named[Literal["video", "voice"]] = Column(_STATUS, comment="As token_rates and token_usage spell it.")
    used_turn: Named[bool] = Column(Boolean, comment="Whether a TURN relay carried the media.")
    first_minute: Named[int] = Column(Integer, comment="Its first minute of the call, from 1.")
    minutes: Named[int] = Column(Integer, comment="Its started minutes that are billed.")
    tokens_per_minute: Named[int] = Column(Integer, comment="Tokens for each of them.")
    rate_from: Named[datetime] = Column(Timestamp, comment="The date of that rate.")
    due: Named[int] = Column(Integer, comment="Tokens that they cost.")
    charged: Named[int] = Column(Integer, comment="Tokens that were taken.")
    shortfall: Named[int] = Column(Integer, comment="Tokens that the balance did not cover.")
    __row_pos__: tuple[int, Literal["video", "voice"], bool, int, int, int, datetime, int, int, int]


class TopUpColumns(TypedColumns):
    """A credit to an account. Columns of top_up."""

    user_id: Named[str] = Column(Text, comment="As given.")
    tokens: Named[int] = Column(Integer, comment="As given.")
    key: Named[str] = Column(Text, comment="As given.")
    status: Named[Literal["ok", "known"]] = Column(_STATUS, comment="Whether it was made now, or before.")
    balance: Named[int] = Column(Integer, comment="Tokens right after it was made.")
    __row_pos__: tuple[str, int, str, Literal["ok", "known"], int]


class RefundColumns(TypedColumns):
    """Tokens of a call that are given back. Columns of refund_call."""

    session_id: Named[UUID] = Column(Uuid, comment="As given.")
    tokens: Named[int] = Column(Integer, comment="As given.")
    key: Named[str] = Column(Text, comment="As given.")
    status: Named[CreditStatus] = Column(
        _STATUS, comment="Whether it was made now, or before; or there is no such call."
    )
    balance: Named[int | None] = Column(Integer, comment="Tokens right after it was made; NULL for an unknown call.")
    __row_pos__: tuple[UUID, int, str, CreditStatus, int | None]


class SettledCallColumns(TypedColumns):
    """A call that was billed after its end. Columns of settle_calls."""

    session_id: Named[UUID] = Column(Uuid, comment="The call.")
    status: Named[CallStatus] = Column(_STATUS, comment="How it went; ended where another was faster.")
    charged: Named[int] = Column(Integer, comment="Tokens that were taken, this time.")
    shortfall: Named[int] = Column(Integer, comment="Tokens that were due while the balance did not cover them.")
    __row_pos__: tuple[UUID, CallStatus, int, int]


class ReapedCallColumns(SettledCallColumns):
    """A call that was ended as stale. Columns of reap_stale_calls."""

    end_time: Named[datetime] = Column(Timestamp, comment="When it was last seen, to which it is billed.")
    __row_pos__: tuple[UUID, CallStatus, int, int, datetime]  # type: ignore[assignment]


def call_quote(user_id: str | None, mode: CallMode, *, used_turn: bool = False) -> NamedFromClause[CallQuoteColumns]:
    """What a minute would cost, and how many the balance covers; nothing is changed. `public.call_quote`.

    One row. status: ok; short, not even a minute; not_billed, no account; unknown, another's. Errors: 22023 an unknown
    mode; 55000 no rate for it.
    """
    return _rows("call_quote", CallQuoteColumns, (user_id, Text), (mode, Text), (used_turn, Boolean))


def start_call(
    user_id: str | None, room_id: str, mode: CallMode, *, used_turn: bool = False, client_key: str | None = None
) -> NamedFromClause[CallStateColumns]:
    """Start a metered call now, at the rates of now; nothing is billed before its first tick. `public.start_call`.

    `user_id`: who pays; None for a visitor. `client_key`: 1 to 200 characters, such as a random UUID; a start that is
    repeated with it gives the call of the first one, so that a reply that was lost can be asked for again.

    One row. status: ok; short, the balance does not cover a minute, and the call goes on all the same; not_billed;
    ended, for what the key knows has ended. minutes_billed is NULL for a call that the key knew. Errors: 22023 an
    unknown mode, no room, or a key of another length; 23505 the key is known from another room or mode; 42501
    another's user_id; 55000 no rate.
    """
    return _rows(
        "start_call",
        CallStateColumns,
        (user_id, Text),
        (room_id, Text),
        (mode, Text),
        (used_turn, Boolean),
        (client_key, Text),
    )


def tick_call(session_id: UUID) -> NamedFromClause[CallStateColumns]:
    """Bill the minutes that have started, and tell that the call goes on. `public.tick_call`.

    A tick that is lost, doubled or late changes no total. One revives a call that was reaped.

    One row. status: ok, short, not_billed, unsettled, ended, unknown. It raises nothing for what a call holds.
    """
    return _rows("tick_call", CallStateColumns, (session_id, Uuid))


def set_call_turn(session_id: UUID, *, used_turn: bool) -> NamedFromClause[CallStateColumns]:
    """Bill the minutes that have started, and price those to come by TURN or not. `public.set_call_turn`.

    One row, as that of `tick_call`; minutes_left is at the new rate.
    """
    return _rows("set_call_turn", CallStateColumns, (session_id, Uuid), (used_turn, Boolean))


def end_call(session_id: UUID) -> NamedFromClause[CallStateColumns]:
    """End the call now, and bill it; it ends although billing fails. `public.end_call`.

    However often it is called, each started minute is billed once. One row, with the statuses of `tick_call`; a call
    of an old client ends, too, as not_billed.
    """
    return _rows("end_call", CallStateColumns, (session_id, Uuid))


def explain_call(session_id: UUID) -> NamedFromClause[CallSegmentColumns]:
    """The receipt of a metered call: a row for each span at one rate, in order. `public.explain_call`.

    No row where there is no such call, or it is not the caller's. The sum of `due` is the call's credit_cost.
    """
    return _rows("explain_call", CallSegmentColumns, (session_id, Uuid))


def top_up(user_id: str, tokens: int, key: str) -> NamedFromClause[TopUpColumns]:
    """Add `tokens`, above zero, to an account, once for each `key` of 1 to 200 characters. `public.top_up`.

    For the owner and service_role. Repeat it with the same key until there is an answer.

    One row. status: ok, known. Errors: 22003 tokens, or the balance, beyond an integer; 22023 no tokens above zero, or
    a key of another length; 23503 no account; 23505 the key is known from a credit of another content.
    """
    return _rows("top_up", TopUpColumns, (user_id, Text), (tokens, Integer), (key, Text))


def refund_call(session_id: UUID, tokens: int, key: str) -> NamedFromClause[RefundColumns]:
    """Give `tokens` of a metered call back, never more in all than were charged, once per `key`. `public.refund_call`.

    For the owner and service_role. One row. status: ok, known, unknown. Errors: those of `top_up`, and 22023 for more
    than is left of what was charged; 23503 the account is gone, or the call never had one.
    """
    return _rows("refund_call", RefundColumns, (session_id, Uuid), (tokens, Integer), (key, Text))


def reap_stale_calls(
    not_seen_for: timedelta = timedelta(minutes=5), max_calls: int = 1000
) -> NamedFromClause[ReapedCallColumns]:
    """End metered calls that were not seen for that time, each when it was last seen. `public.reap_stale_calls`.

    For the owner and service_role; safe to run by several at once. It takes at most `max_calls`: fewer rows mean that
    no more are stale. Each row's status: ok, short, not_billed, unsettled. Errors: 22023 an argument below zero.
    """
    return _rows("reap_stale_calls", ReapedCallColumns, (not_seen_for, Interval), (max_calls, Integer))


def settle_calls(max_calls: int = 1000) -> NamedFromClause[SettledCallColumns]:
    """Bill metered calls that have ended and could not be billed then. `public.settle_calls`.

    For the owner and service_role; safe to run by several at once. It takes at most `max_calls`, those that failed last
    come last. Each row's status: ok, short, not_billed; unsettled, where oblivion.billing_incidents tells why; ended,
    where another was faster. Errors: 22023 an argument below zero.
    """
    return _rows("settle_calls", SettledCallColumns, (max_calls, Integer))


_Columns = TypeVar("_Columns", bound=TypedColumns)


def _rows(
    name: str, columns: type[_Columns], *arguments: tuple[object, type[TypeEngine[Any]]]
) -> NamedFromClause[_Columns]:
    # Cast, for psycopg2 writes values as they are: one beyond an integer would ask for a function of bigint.
    call = getattr(func.public, name)(*(cast(value, type_) for value, type_ in arguments))
    returned = _returned(columns)  # type: ignore[arg-type]  # hashable it is, as only its instances are not
    return call.table_valued(*returned).with_cols(columns)  # type: ignore[no-any-return]


@cache
def _returned(columns: type[TypedColumns]) -> tuple[ColumnClause[Any], ...]:
    return tuple(column(c.name, c.type) for c in Table("returned", MetaData(), columns).c)
