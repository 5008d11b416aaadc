"""Metering: what the token engine knows of a call beyond its row, and the engine itself, functions in the database.

A call that `start_call()` made is metered. Its price is that of its segments, each a span of minutes at one rate; what
it has been billed is its `credit_cost`. `oblivion.bill_call()` charges the difference.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Identity,
    Integer,
    Named,
    Table,
    Text,
    TypedColumns,
    Uuid,
    text,
)

from oblivion_schema.declare.access import EXECUTE
from oblivion_schema.declare.ddl import declare, function, grants, qualified, trigger
from oblivion_schema.declare.privileges import API_ROLES, Grants
from oblivion_schema.tables.base import PRIVATE_SCHEMA, Timestamp, metadata
from oblivion_schema.tables.calls import call_sessions
from oblivion_schema.tables.ledger import token_ledger
from oblivion_schema.tables.rates import token_rates
from oblivion_schema.tables.usage import token_usage


class CallMeterColumns(TypedColumns):
    """Columns of `oblivion.call_meters`."""

    session_id: Named[UUID] = Column(
        Uuid, ForeignKey("call_sessions.id", ondelete="CASCADE"), primary_key=True, comment="The call."
    )
    user_id: Named[str | None] = Column(Text, comment="Who started it; with client_key what makes a start known.")
    client_key: Named[str | None] = Column(Text, comment="The key by which its client starts it once.")
    mode: Named[str] = Column(Text, comment="What is priced: voice (a voice-only call) or video.")
    direct_rate: Named[int] = Column(Integer, comment="Tokens for each started minute without TURN, as it began.")
    direct_rate_from: Named[datetime] = Column(Timestamp, comment="The date of that rate.")
    turn_rate: Named[int] = Column(Integer, comment="Tokens for each started minute over TURN, as it began.")
    turn_rate_from: Named[datetime] = Column(Timestamp, comment="The date of that rate.")
    segment: Named[int] = Column(Integer, server_default=text("1"), comment="Which of its segments goes on, from 1.")
    usage_id: Named[UUID] = Column(
        Uuid,
        server_default=text("gen_random_uuid()"),
        unique=True,
        comment="That one's row of token_usage, once it has one.",
    )
    used_turn: Named[bool] = Column(Boolean, comment="Whether the TURN rate applies to it.")
    tokens_per_minute: Named[int] = Column(Integer, comment="Tokens for each of its started minutes.")
    first_minute: Named[int] = Column(Integer, server_default=text("0"), comment="Minutes of the call before it.")
    first_second: Named[int] = Column(Integer, server_default=text("0"), comment="Seconds of the call before it.")
    due_before: Named[int] = Column(
        BigInteger, server_default=text("0"), comment="Tokens that the minutes before it cost."
    )
    shortfall: Named[int] = Column(
        Integer, server_default=text("0"), comment="Tokens that were due in it while the balance did not cover them."
    )
    refunded: Named[int] = Column(Integer, server_default=text("0"), comment="Tokens given back.")
    settled: Named[bool] = Column(
        Boolean, server_default=text("false"), comment="It has ended, and is billed to its end."
    )
    reaped: Named[bool] = Column(
        Boolean, server_default=text("false"), comment="It was ended as stale: a late tick revives it."
    )
    has_incident: Named[bool] = Column(
        Boolean, server_default=text("false"), comment="Its last billing failed: an incident is open."
    )


call_meters: Final = Table(
    "call_meters",
    metadata,
    CallMeterColumns,
    schema=PRIVATE_SCHEMA,
    comment="What the engine knows of each call that start_call() made.",
)
declare(
    call_meters,
    "index",
    "oblivion.call_meters_client_key",
    "CREATE UNIQUE INDEX call_meters_client_key ON oblivion.call_meters (user_id, client_key)"
    " NULLS NOT DISTINCT WHERE client_key IS NOT NULL",
)
declare(
    call_meters,
    "index",
    "oblivion.call_meters_unsettled",
    "CREATE INDEX call_meters_unsettled ON oblivion.call_meters (session_id) WHERE NOT settled",
)
grants(call_meters, "call_meters", f"TABLE {qualified(call_meters)}", {})


class CallSegmentColumns(TypedColumns):
    """Columns of `oblivion.call_segments`."""

    session_id: Named[UUID] = Column(
        Uuid, ForeignKey("oblivion.call_meters.session_id", ondelete="CASCADE"), primary_key=True, comment="The call."
    )
    number: Named[int] = Column(Integer, primary_key=True, autoincrement=False, comment="From 1, in the call's order.")
    usage_id: Named[UUID] = Column(Uuid, unique=True, comment="Its row of token_usage, once it has one.")
    used_turn: Named[bool] = Column(Boolean, comment="Whether the TURN rate applies.")
    tokens_per_minute: Named[int] = Column(Integer, comment="Tokens for each of its started minutes.")
    rate_from: Named[datetime] = Column(Timestamp, comment="The date of that rate.")
    first_minute: Named[int] = Column(Integer, comment="Minutes of the call before it.")
    minutes: Named[int] = Column(Integer, comment="Its minutes.")
    seconds: Named[int] = Column(Integer, comment="Its length in seconds.")
    due_before: Named[int] = Column(BigInteger, comment="Tokens that the minutes before it cost.")
    due_after: Named[int] = Column(BigInteger, comment="Tokens that they cost with its own.")
    shortfall: Named[int] = Column(Integer, comment="Tokens that were due in it while the balance did not cover them.")


call_segments: Final = Table(
    "call_segments",
    metadata,
    CallSegmentColumns,
    schema=PRIVATE_SCHEMA,
    comment="The past segments of metered calls: spans at one rate, each with a row of usage.",
)
grants(call_segments, "call_segments", f"TABLE {qualified(call_segments)}", {})


class BillingIncidentColumns(TypedColumns):
    """Columns of `oblivion.billing_incidents`."""

    id: Named[int] = Column(BigInteger, Identity(always=True), primary_key=True, comment="The incident.")
    session_id: Named[UUID] = Column(Uuid, comment="The call that could not be billed; it may be gone by now.")
    user_id: Named[str | None] = Column(Text, comment="Its user.")
    action: Named[str] = Column(Text, comment="What it was billed for: tick, turn, end, reap or settle.")
    error_code: Named[str] = Column(Text, comment="PostgreSQL's SQLSTATE.")
    message: Named[str] = Column(Text, comment="PostgreSQL's message.")
    attempts: Named[int] = Column(
        Integer, server_default=text("1"), comment="How often it failed; else of the last time."
    )
    first_at: Named[datetime] = Column(
        Timestamp, server_default=text("clock_timestamp()"), comment="When it failed first."
    )
    last_at: Named[datetime] = Column(
        Timestamp, server_default=text("clock_timestamp()"), comment="When it failed last."
    )
    resolved_at: Named[datetime | None] = Column(Timestamp, comment="When the call was billed; NULL while it is not.")


billing_incidents: Final = Table(
    "billing_incidents",
    metadata,
    BillingIncidentColumns,
    schema=PRIVATE_SCHEMA,
    comment="Calls whose billing failed, which their clients never see.",
)
declare(
    billing_incidents,
    "index",
    "oblivion.billing_incidents_open",
    "CREATE UNIQUE INDEX billing_incidents_open ON oblivion.billing_incidents (session_id) WHERE resolved_at IS NULL",
)
grants(billing_incidents, "billing_incidents", f"TABLE {qualified(billing_incidents)}", {})

_EVERYBODY: Final = dict.fromkeys(API_ROLES, EXECUTE)
_SERVICE: Final = {"service_role": EXECUTE}
_STATE: Final = (
    "Returns a row. status: ok; short, the balance did not cover it; not_billed, nobody pays; unsettled, billing"
    " failed and is made up for later; ended, it had ended before; unknown, no such call, or not the caller's."
    " charged and shortfall: tokens, by this time. balance: tokens left. minutes_billed: started minutes in all."
    " minutes_left: whole minutes that the balance covers. credit_cost: tokens due in all."
)
_CREDIT: Final = (
    "Returns a row: status (ok; known: the answer is the first one's) and balance (tokens after it). Errors: 22023 no"
    " tokens above zero, or no key; 22003 a balance beyond an integer; 23503 no account; 23505 a key that is known with"
    " other content."
)

# The engine stands on the last of its tables.
for _table in (token_rates, token_ledger, token_usage, call_segments):
    billing_incidents.add_is_dependent_on(_table)


def _engine(name: str, arguments: str, granted: Grants, *comment: str) -> None:
    function(billing_incidents, name, arguments, comment=" ".join(comment), granted=granted)


_engine("oblivion.may_act_for", "text, text", {}, "Whether a role may act for a user, or a call of no user.")
_engine("oblivion.check_key", "text, text", {}, "Refuses a key that is empty, or longer than 200 characters.")
_engine("oblivion.note_incident", "uuid, text, text, text, text", {}, "Notes that a call could not be billed.")
_engine("oblivion.note_outcome", "uuid, text, boolean, boolean, boolean", {}, "Notes what a bill has made of a call.")
_engine(
    "oblivion.bill_call",
    "oblivion.call_meters, text, timestamptz, integer, timestamptz, text",
    {},
    "Charges what a call costs until then, less what it has been billed; a failure is a status.",
)
_engine(
    "oblivion.turn_call", "oblivion.call_meters, boolean, double precision", {}, "Begins a segment at another rate."
)
_engine("oblivion.rate_card", "text, boolean", {}, "What a minute costs now.")
_engine(
    "oblivion.advance_unmetered_call", "uuid, text, text", {}, "What advance_call() does to a call of an old client."
)
_engine(
    "oblivion.advance_call",
    "uuid, text, boolean, text",
    _EVERYBODY,
    "What tick_call(), set_call_turn(), end_call(), reap_stale_calls() and settle_calls() do to a call.",
)
_engine("oblivion.credit_account", "text, integer, text, text, uuid, integer", {}, "Adds tokens once for each key.")
for _name, _arguments, _granted in (
    ("call_quote", "text, text, boolean, text", _EVERYBODY),
    ("start_call", "text, text, text, boolean, text, text", _EVERYBODY),
    ("explain_call", "uuid, text", _EVERYBODY),
    ("top_up", "text, integer, text", _SERVICE),
    ("refund_call", "uuid, integer, text", _SERVICE),
    ("reap_stale_calls", "interval, integer", _SERVICE),
    ("settle_calls", "integer", _SERVICE),
):
    _engine(f"oblivion.{_name}", _arguments, _granted, f"What public.{_name}() does, as the owner.")

_engine(
    "public.call_quote",
    "text, text, boolean",
    _EVERYBODY,
    "What a call would cost. mode: video or voice-only. Returns a row: status (ok; short, not a minute; not_billed, no",
    "account; unknown, another's), tokens_per_minute, rate_from (the date of that rate), balance (tokens),",
    "minutes_left (whole minutes that it covers). Errors: 22023 unknown mode; 55000 no rate.",
)
_engine(
    "public.start_call",
    "text, text, text, boolean, text",
    _EVERYBODY,
    "Starts a metered call by the server's clock. mode: video or voice-only. With client_key, 1 to 200 characters, a",
    "repeated start gives the call of the first one.",
    _STATE,
    "Errors: 22023 unknown mode, no room, or a key of another length; 23505 a key that is known from another room or",
    "mode; 42501 another's user_id; 55000 no rate.",
)
_engine(
    "public.tick_call",
    "uuid",
    _EVERYBODY,
    "Bills the minutes that have started; one that is lost, doubled or late changes no total.",
    _STATE,
)
_engine(
    "public.set_call_turn",
    "uuid, boolean",
    _EVERYBODY,
    "Bills the minutes that have started, and says whether a TURN relay carries the media from now on, which prices",
    "the minutes to come.",
    _STATE,
)
_engine(
    "public.end_call",
    "uuid",
    _EVERYBODY,
    "Ends the call now, and bills it; it ends although billing fails, and is billed once however often.",
    _STATE,
)
_engine(
    "public.explain_call",
    "uuid",
    _EVERYBODY,
    "The receipt of a metered call: a row for each segment, with its mode and TURN, its first minute and its minutes,",
    "the rate and its date, tokens due, charged, and shortfall.",
)
_engine(
    "public.top_up",
    "text, integer, text",
    _SERVICE,
    "Adds tokens to an account, once for each key of 1 to 200 characters.",
    _CREDIT,
)
_engine(
    "public.refund_call",
    "uuid, integer, text",
    _SERVICE,
    "Gives tokens of a metered call back, once for each key of 1 to 200 characters, and never more than were charged",
    "(22023). An unknown call is a status.",
    _CREDIT,
)
_engine(
    "public.reap_stale_calls",
    "interval, integer",
    _SERVICE,
    "Ends metered calls that were not seen for that time, at most so many: each is billed to when it was last seen. A",
    "late tick revives one. Returns a row for each: status, charged and shortfall (tokens), end_time. Safe to run by",
    "several at once. Errors: 22023 a negative argument.",
)
_engine(
    "public.settle_calls",
    "integer",
    _SERVICE,
    "Bills metered calls that have ended and could not be billed then, at most so many. Returns a row for each: status",
    "(ok, short, not_billed; unsettled: oblivion.billing_incidents tells why), charged and shortfall (tokens). Safe to",
    "run by several at once. Errors: 22023 a negative argument.",
)

for _name, _comment in (
    ("guard_metered_call", "Trigger: keeps an API role from what a metered call costs."),
    ("settle_deleted_call", "Trigger: bills a metered call before somebody deletes it."),
    ("guard_metered_usage", "Trigger: keeps an API role from the usage of metered calls."),
):
    function(billing_incidents, f"oblivion.{_name}", comment=_comment)
# As text, which is short: PostgreSQL reads the condition anew for each statement.
_IS_API_ROLE: Final = "current_user::text = ANY ('{anon,authenticated,service_role}'::text[])"
for _guarded, _name, _moment, _when in (
    (call_sessions, "guard_metered_call", "BEFORE UPDATE", _IS_API_ROLE),
    (call_sessions, "settle_deleted_call", "BEFORE DELETE", ""),
    (token_usage, "guard_metered_usage", "BEFORE UPDATE OR DELETE", _IS_API_ROLE),
):
    trigger(_guarded, _name, _moment, f"oblivion.{_name}", when=_when, after=billing_incidents)
