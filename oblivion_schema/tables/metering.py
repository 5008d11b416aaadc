"""Metering: what the token engine knows of a call beyond its row, and the engine itself, functions in the database.

A call that `start_call()` made is metered. Its price is that of its segments, each a span of minutes at one rate; what
it has been billed is its `credit_cost`. `oblivion.bill_call()` charges the difference.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
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
from oblivion_schema.declare.ddl import declare, function, grants, qualified
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.tables.base import PRIVATE_SCHEMA, Timestamp, metadata
from oblivion_schema.tables.ledger import token_ledger
from oblivion_schema.tables.rates import token_rates
from oblivion_schema.tables.usage import token_usage

SQL: Final = Path(__file__).with_suffix("")


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

# The engine stands on the last of its tables.
for _table in (token_rates, token_ledger, token_usage, call_segments):
    billing_incidents.add_is_dependent_on(_table)

# What the engine calls, and what its triggers execute.
function(billing_incidents, SQL / "oblivion.may_act_for.sql")
function(billing_incidents, SQL / "oblivion.check_key.sql")
function(billing_incidents, SQL / "oblivion.note_incident.sql")
function(billing_incidents, SQL / "oblivion.note_outcome.sql")
function(billing_incidents, SQL / "oblivion.bill_call.sql")
function(billing_incidents, SQL / "oblivion.turn_call.sql")
function(billing_incidents, SQL / "oblivion.rate_card.sql")
function(billing_incidents, SQL / "oblivion.advance_unmetered_call.sql")

# What public functions call, each as the owner.
_EVERYBODY: Final = dict.fromkeys(API_ROLES, EXECUTE)
_SERVICE: Final = {"service_role": EXECUTE}
function(billing_incidents, SQL / "oblivion.advance_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "oblivion.credit_account.sql")
function(billing_incidents, SQL / "oblivion.call_quote.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "oblivion.start_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "oblivion.explain_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "oblivion.top_up.sql", granted=_SERVICE)
function(billing_incidents, SQL / "oblivion.refund_call.sql", granted=_SERVICE)
function(billing_incidents, SQL / "oblivion.reap_stale_calls.sql", granted=_SERVICE)
function(billing_incidents, SQL / "oblivion.settle_calls.sql", granted=_SERVICE)

# What clients and services call.
function(billing_incidents, SQL / "public.call_quote.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "public.start_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "public.tick_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "public.set_call_turn.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "public.end_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "public.explain_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "public.top_up.sql", granted=_SERVICE)
function(billing_incidents, SQL / "public.refund_call.sql", granted=_SERVICE)
function(billing_incidents, SQL / "public.reap_stale_calls.sql", granted=_SERVICE)
function(billing_incidents, SQL / "public.settle_calls.sql", granted=_SERVICE)

function(billing_incidents, SQL / "oblivion.guard_metered_call.sql")
function(billing_incidents, SQL / "oblivion.settle_deleted_call.sql")
function(billing_incidents, SQL / "oblivion.guard_metered_usage.sql")
