"""The token engine for Python: each function returns an SQL function call to select from, with typed columns.

    with engine.begin() as connection:
        call = connection.execute(select(start_call("ada", "lobby", "video"))).one()
        ...
        ended = connection.execute(select(end_call(call.session_id))).one()

Nothing happens until the statement is executed, and nothing is final until the transaction commits. Until then the call
and the paying account stay locked. Keep transactions short: one function call each.

Tokens are whole numbers. Minutes are started minutes, by the server's clock, which never goes back for a call.

A tick changes the balance and its ledger at once. `call_sessions.credit_cost` is written when the call turns or ends,
and `token_usage` gets its row then. The owner reads in `oblivion.live_calls` what live calls have burnt.

Who may execute a function:

- `top_up`, `refund_call`, `burn_calls`, `reap_stale_calls`, `settle_calls`: the owner and service_role, in both access
  modes.
- All others, open mode: every role.
- All others, authenticated mode: signed-in users for their own calls. A call without a user, or of a user
  `anonymous_...`, belongs to everybody who knows its id.

An error changes nothing. SQLSTATE 42501 means that the role may not execute the function; 22023 means that an argument
is invalid, and the hint says what to give.

`status` is the result of a function:

- ok: done, and paid.
- short: done, but the balance did not cover the due tokens; the rest is not charged later.
- not_billed: nobody pays. The call has no user, a user named `anonymous_...`, or a user without an account; or an old
  client started it and bills it itself.
- unsettled: the call goes on, or has ended, but its billing failed. Its next tick, or `settle_calls`, bills it.
- ended: the call had ended before; nothing was changed.
- unknown: the call does not exist, or belongs to another user.
- known: a credit with this key was made before; the row describes that one.
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
    "burn_calls",
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
"""The kind of call. "voice" is how token_usage spells "voice-only", and means the same here."""
CallStatus: TypeAlias = Literal["ok", "short", "not_billed", "unsettled", "ended", "unknown"]
QuoteStatus: TypeAlias = Literal["ok", "short", "not_billed", "unknown"]
CreditStatus: TypeAlias = Literal["ok", "known", "unknown"]

# Typed as Any, because a type checker takes Text for a column of any str, not of these literals.
_STATUS: Any = Text


class CallStateColumns(TypedColumns):
    """The state of a call: columns of start_call, tick_call, set_call_turn and end_call."""

    session_id: Named[UUID] = Column(Uuid, comment="The call.")
    status: Named[CallStatus] = Column(_STATUS, comment="The result.")
    charged: Named[int] = Column(Integer, comment="Tokens charged by this function call.")
    shortfall: Named[int] = Column(Integer, comment="Due tokens that the balance did not cover.")
    balance: Named[int | None] = Column(Integer, comment="Tokens left; NULL if nobody pays.")
    minutes_billed: Named[int | None] = Column(Integer, comment="Billed started minutes of the call.")
    minutes_left: Named[int | None] = Column(
        Integer, comment="Whole minutes that the balance covers at the call's rate; NULL if nobody pays, or at rate 0."
    )
    credit_cost: Named[Decimal | None] = Column(Numeric(10, 4), comment="Tokens due since the call's start.")
    __row_pos__: tuple[UUID, CallStatus, int, int, int | None, int | None, int | None, Decimal | None]


class CallQuoteColumns(TypedColumns):
    """The price of a call: columns of call_quote."""

    status: Named[QuoteStatus] = Column(_STATUS, comment="Whether anybody pays, and the balance covers a minute.")
    tokens_per_minute: Named[int] = Column(Integer, comment="Tokens for each started minute.")
    rate_from: Named[datetime] = Column(Timestamp, comment="The date from which that rate is valid.")
    balance: Named[int | None] = Column(Integer, comment="Tokens of the account; NULL without one.")
    minutes_left: Named[int | None] = Column(Integer, comment="Whole minutes that it covers; NULL at rate 0.")
    __row_pos__: tuple[QuoteStatus, int, datetime, int | None, int | None]


class CallSegmentColumns(TypedColumns):
    """A span of a call at one rate: columns of explain_call."""

    segment: Named[int] = Column(Integer, comment="Number of the span in the call, from 1.")
    mode: Named[Literal["video", "voice"]] = Column(_STATUS, comment="As token_rates and token_usage spell it.")
    used_turn: Named[bool] = Column(Boolean, comment="Whether a TURN relay carried the media.")
    first_minute: Named[int] = Column(Integer, comment="The call's minute in which the span starts, from 1.")
    minutes: Named[int] = Column(Integer, comment="Billed started minutes of the span.")
    tokens_per_minute: Named[int] = Column(Integer, comment="Tokens for each of them.")
    rate_from: Named[datetime] = Column(Timestamp, comment="The date from which that rate is valid.")
    due: Named[int] = Column(Integer, comment="Tokens due for them.")
    charged: Named[int] = Column(Integer, comment="Tokens charged.")
    shortfall: Named[int] = Column(Integer, comment="Due tokens that the balance did not cover.")
    __row_pos__: tuple[int, Literal["video", "voice"], bool, int, int, int, datetime, int, int, int]


class TopUpColumns(TypedColumns):
    """A credit to an account: columns of top_up."""

    user_id: Named[str] = Column(Text, comment="As given.")
    tokens: Named[int] = Column(Integer, comment="As given.")
    key: Named[str] = Column(Text, comment="As given.")
    status: Named[Literal["ok", "known"]] = Column(_STATUS, comment="Whether it was made now or before.")
    balance: Named[int] = Column(Integer, comment="Tokens of the account right after the credit.")
    __row_pos__: tuple[str, int, str, Literal["ok", "known"], int]


class RefundColumns(TypedColumns):
    """Refunded tokens of a call: columns of refund_call."""

    session_id: Named[UUID] = Column(Uuid, comment="As given.")
    tokens: Named[int] = Column(Integer, comment="As given.")
    key: Named[str] = Column(Text, comment="As given.")
    status: Named[CreditStatus] = Column(_STATUS, comment="Whether it was made now or before, or the call is unknown.")
    balance: Named[int | None] = Column(Integer, comment="Tokens right after the refund; NULL for an unknown call.")
    __row_pos__: tuple[UUID, int, str, CreditStatus, int | None]


class SettledCallColumns(TypedColumns):
    """A call that was billed without its client: columns of burn_calls and settle_calls."""

    session_id: Named[UUID] = Column(Uuid, comment="The call.")
    status: Named[CallStatus] = Column(_STATUS, comment="The result; ended if another session has billed it.")
    charged: Named[int] = Column(Integer, comment="Tokens charged by this function call.")
    shortfall: Named[int] = Column(Integer, comment="Due tokens that the balance did not cover.")
    __row_pos__: tuple[UUID, CallStatus, int, int]


class ReapedCallColumns(SettledCallColumns):
    """A stale call that was ended: columns of reap_stale_calls."""

    end_time: Named[datetime] = Column(Timestamp, comment="When it was last seen; it is billed until then.")
    __row_pos__: tuple[UUID, CallStatus, int, int, datetime]  # type: ignore[assignment]


def call_quote(user_id: str | None, mode: CallMode, *, used_turn: bool = False) -> NamedFromClause[CallQuoteColumns]:
    """The price of a minute, and how many minutes the balance covers. Changes nothing. `public.call_quote`.

    Returns one row. status: ok; short if the balance does not cover a minute; not_billed without an account; unknown
    for another user's id. Errors: 22023 for an unknown mode; 55000 if it has no rate.
    """
    return _rows("call_quote", CallQuoteColumns, (user_id, Text), (mode, Text), (used_turn, Boolean))


def start_call(
    user_id: str | None, room_id: str, mode: CallMode, *, used_turn: bool = False, client_key: str | None = None
) -> NamedFromClause[CallStateColumns]:
    """Start a metered call now, at the current rates. Nothing is billed before its first tick. `public.start_call`.

    - `user_id`: the user who pays; None for a visitor.
    - `client_key`: 1 to 200 characters, such as a random UUID. A second start with the same key returns the first call,
      so that a client whose reply was lost can ask again.

    Returns one row. status: ok; short if the balance does not cover a minute (the call starts anyway); not_billed;
    ended if the call with that key has ended. minutes_billed is NULL for a call that existed before.

    Errors: 22023 for an unknown mode, no room, or a key of another length; 23505 if the key belongs to a call with
    another room or mode; 42501 for another user's id; 55000 without a rate.
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
    """Bill the minutes that have started, and record that the call goes on. `public.tick_call`.

    A lost, repeated or late tick changes no total. A tick continues a call that was reaped.

    Returns one row. status: ok, short, not_billed, unsettled, ended, unknown. No state of a call makes it fail.
    """
    return _rows("tick_call", CallStateColumns, (session_id, Uuid))


def set_call_turn(session_id: UUID, *, used_turn: bool) -> NamedFromClause[CallStateColumns]:
    """Bill the minutes that have started, and switch to the rate with or without TURN. `public.set_call_turn`.

    Returns one row as `tick_call`; minutes_left is at the new rate.
    """
    return _rows("set_call_turn", CallStateColumns, (session_id, Uuid), (used_turn, Boolean))


def end_call(session_id: UUID) -> NamedFromClause[CallStateColumns]:
    """End the call now, and bill it. It ends even if billing fails. `public.end_call`.

    Each started minute is billed once, however often it is called. Returns one row with the statuses of `tick_call`. A
    call of an old client ends too, with the status not_billed.
    """
    return _rows("end_call", CallStateColumns, (session_id, Uuid))


def explain_call(session_id: UUID) -> NamedFromClause[CallSegmentColumns]:
    """The receipt of a metered call: a row for each span at one rate, in order. `public.explain_call`.

    Returns no row if the call does not exist, or belongs to another user. The sum of `due` is what the call has been
    billed; once it has ended, that is its credit_cost.
    """
    return _rows("explain_call", CallSegmentColumns, (session_id, Uuid))


def top_up(user_id: str, tokens: int, key: str) -> NamedFromClause[TopUpColumns]:
    """Add `tokens` to an account, once for each `key`. For the owner and service_role. `public.top_up`.

    `tokens` is above zero; `key` has 1 to 200 characters. After a lost reply, repeat it with the same key.

    Returns one row. status: ok, known. Errors: 22003 if tokens or balance exceed an integer; 22023 for tokens of zero
    or less, or a key of another length; 23503 without an account; 23505 if the key belongs to a different credit.
    """
    return _rows("top_up", TopUpColumns, (user_id, Text), (tokens, Integer), (key, Text))


def refund_call(session_id: UUID, tokens: int, key: str) -> NamedFromClause[RefundColumns]:
    """Refund `tokens` of a metered call, once for each `key`. For the owner and service_role. `public.refund_call`.

    All refunds of a call together never exceed the charged tokens.

    Returns one row. status: ok, known, unknown. Errors: those of `top_up`; also 22023 for more tokens than remain of
    the charge, and 23503 if the account is gone or the call never had one.
    """
    return _rows("refund_call", RefundColumns, (session_id, Uuid), (tokens, Integer), (key, Text))


def burn_calls(max_calls: int = 1000) -> NamedFromClause[SettledCallColumns]:
    """Bill the minutes of open calls of metered pages that had a heartbeat since. `public.burn_calls`.

    For the owner and service_role; several sessions may run it at once. It bills at most `max_calls`, each up to the
    last heartbeat of its room, or of the host who makes it. status: ok, short, not_billed, unsettled. It returns no row
    if pages are trusted. Errors: 22023 for an argument below zero.
    """
    return _rows("burn_calls", SettledCallColumns, (max_calls, Integer))


def reap_stale_calls(
    not_seen_for: timedelta = timedelta(minutes=5),
    max_calls: int = 1000,
    *,
    pages_not_seen_for: timedelta = timedelta(hours=12),
) -> NamedFromClause[ReapedCallColumns]:
    """End metered calls not seen for that time, each at the time when it was last seen. `public.reap_stale_calls`.

    `pages_not_seen_for` is the time for calls that a page inserted: they are seen by the heartbeats of `burn_calls()`.
    For the owner and service_role; several sessions may run it at once. It ends at most `max_calls`; if it returns
    fewer rows, no more calls are stale. status: ok, short, not_billed, unsettled. Errors: 22023 for an argument below
    zero.
    """
    return _rows(
        "reap_stale_calls",
        ReapedCallColumns,
        (not_seen_for, Interval),
        (max_calls, Integer),
        (pages_not_seen_for, Interval),
    )


def settle_calls(max_calls: int = 1000) -> NamedFromClause[SettledCallColumns]:
    """Bill metered calls that have ended, but whose billing failed. `public.settle_calls`.

    For the owner and service_role; several sessions may run it at once. It bills at most `max_calls`; the calls that
    failed most recently come last. status: ok, short, not_billed; unsettled if billing failed again, with the reason in
    oblivion.billing_incidents; ended if another session has billed the call. Errors: 22023 for an argument below zero.
    """
    return _rows("settle_calls", SettledCallColumns, (max_calls, Integer))


_Columns = TypeVar("_Columns", bound=TypedColumns)


def _rows(
    name: str, columns: type[_Columns], *arguments: tuple[object, type[TypeEngine[Any]]]
) -> NamedFromClause[_Columns]:
    # psycopg2 sends values without a type: without the cast a number beyond integer would name a function of bigint.
    call = getattr(func.public, name)(*(cast(value, type_) for value, type_ in arguments))
    returned = _returned(columns)  # type: ignore[arg-type]  # the class is hashable, only its instances are not
    return call.table_valued(*returned).with_cols(columns)  # type: ignore[no-any-return]


@cache
def _returned(columns: type[TypedColumns]) -> tuple[ColumnClause[Any], ...]:
    return tuple(column(c.name, c.type) for c in Table("returned", MetaData(), columns).c)
