"""Metering: the token engine, which is functions in the database, and what it stores about each call.

A call that `start_call()` made is metered, and so are calls of pages if pages are metered (`pages`). A call consists of
segments; a segment is a span of minutes at one rate. The price of a call is the sum of its segments. The meter holds
what was billed; a bill charges the difference.

While a call goes on, a tick writes its meter, the account and the ledger, and nothing else. A segment gets its row of
`token_usage` when it is over, `call_sessions` its `credit_cost` when the call turns or ends.

`oblivion.tick_call()` and `oblivion.end_call()` are one statement each, for the common case. `oblivion.advance_call()`
does everything else, and `oblivion.bill_call()` is its heart.
"""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
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
    Numeric,
    Table,
    Text,
    TypedColumns,
    Uuid,
    text,
)

from oblivion_schema.declare.access import EXECUTE, keep_pages_out
from oblivion_schema.declare.ddl import declare, function, grants, qualified, view
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.tables.access import SQL as ACCESS_SQL
from oblivion_schema.tables.accounts import user_accounts
from oblivion_schema.tables.base import PRIVATE_SCHEMA, Timestamp, metadata
from oblivion_schema.tables.calls import call_sessions
from oblivion_schema.tables.ledger import SQL as LEDGER_SQL
from oblivion_schema.tables.ledger import token_ledger
from oblivion_schema.tables.rates import token_rates
from oblivion_schema.tables.usage import token_usage

SQL: Final = Path(__file__).with_suffix("")


class CallMeterColumns(TypedColumns):
    """Columns of `oblivion.call_meters`."""

    session_id: Named[UUID] = Column(
        Uuid, ForeignKey("call_sessions.id", ondelete="CASCADE"), primary_key=True, comment="The call."
    )
    user_id: Named[str | None] = Column(
        Text, comment="The user who started the call; user_id and client_key identify a repeated start."
    )
    client_key: Named[str | None] = Column(Text, comment="Idempotency key of start_call(), given by the client.")
    mode: Named[str] = Column(Text, comment="Mode that is priced: voice (a voice-only call) or video.")
    direct_rate: Named[int] = Column(
        Integer, comment="Tokens for each started minute without TURN, fixed at the start of the call."
    )
    direct_rate_from: Named[datetime] = Column(Timestamp, comment="When direct_rate took effect.")
    turn_rate: Named[int] = Column(
        Integer, comment="Tokens for each started minute over TURN, fixed at the start of the call."
    )
    turn_rate_from: Named[datetime] = Column(Timestamp, comment="When turn_rate took effect.")
    started_at: Named[datetime] = Column(
        Timestamp,
        comment=(
            "When the call began: start_time of the call, which a trigger keeps the same; if a page inserted it, when"
            " the server saw that."
        ),
    )
    seen_at: Named[datetime] = Column(
        Timestamp, comment="When the call was last seen, by a tick, a change of TURN or its end."
    )
    segment: Named[int] = Column(Integer, server_default=text("1"), comment="Number of the current segment, from 1.")
    usage_id: Named[UUID | None] = Column(
        Uuid,
        comment=(
            "Id of the token_usage row of the current segment; NULL until the segment is over. If the segment cost"
            " nothing, there may be no such row."
        ),
    )
    used_turn: Named[bool] = Column(Boolean, comment="Whether the TURN rate applies to the current segment.")
    tokens_per_minute: Named[int] = Column(Integer, comment="Tokens for each started minute of the current segment.")
    first_minute: Named[int] = Column(
        Integer, server_default=text("0"), comment="Minutes of the call before the current segment."
    )
    first_second: Named[int] = Column(
        Integer, server_default=text("0"), comment="Seconds of the call before the current segment."
    )
    due_before: Named[int] = Column(
        BigInteger, server_default=text("0"), comment="Tokens due for the minutes before the current segment."
    )
    cost: Named[int] = Column(Integer, server_default=text("0"), comment="Tokens that the call has been billed.")
    cost_before: Named[int] = Column(
        Integer, server_default=text("0"), comment="cost before the last bill of tick_call() or end_call()."
    )
    shortfall: Named[int] = Column(
        Integer, server_default=text("0"), comment="Tokens due in the current segment that the balance did not cover."
    )
    refunded: Named[int] = Column(Integer, server_default=text("0"), comment="Tokens refunded.")
    is_plain: Named[bool] = Column(
        Boolean,
        comment=(
            "Whether one statement may bill the call: it goes on, its last bill was paid in full, and no row of"
            " token_usage is there for its current segment."
        ),
    )
    by_page: Named[bool] = Column(
        Boolean,
        server_default=text("false"),
        comment=(
            "Whether a page inserted the call: it is charged at the lower rate while it goes on, and TURN at its end"
            " prices all of it."
        ),
    )
    settled: Named[bool] = Column(
        Boolean, server_default=text("false"), comment="Whether the call has ended, and is billed to its end."
    )
    reaped: Named[bool] = Column(
        Boolean, server_default=text("false"), comment="Whether the call was ended as stale; a late tick reopens it."
    )
    has_incident: Named[bool] = Column(
        Boolean, server_default=text("false"), comment="Whether the last billing failed, so that an incident is open."
    )
    __row_pos__: tuple[
        UUID,
        str | None,
        str | None,
        str,
        int,
        datetime,
        int,
        datetime,
        datetime,
        datetime,
        int,
        UUID | None,
        bool,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        int,
        bool,
        bool,
        bool,
        bool,
        bool,
    ]


call_meters: Final = Table(
    "call_meters",
    metadata,
    CallMeterColumns,
    schema=PRIVATE_SCHEMA,
    comment=(
        "Meters: what the engine stores about each metered call, which start_call() made, or a page if pages are"
        " metered."
    ),
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
# A tick updates the meter: free space on the page, and no index on what changes, make that a HOT update.
declare(call_meters, "storage parameter", "fillfactor", "ALTER TABLE oblivion.call_meters SET (fillfactor = 60)")
keep_pages_out(call_meters)
grants(call_meters, "call_meters", f"TABLE {qualified(call_meters)}", {})


class CallSegmentColumns(TypedColumns):
    """Columns of `oblivion.call_segments`."""

    session_id: Named[UUID] = Column(
        Uuid, ForeignKey("oblivion.call_meters.session_id", ondelete="CASCADE"), primary_key=True, comment="The call."
    )
    number: Named[int] = Column(
        Integer, primary_key=True, autoincrement=False, comment="Number of the segment in the call, from 1."
    )
    usage_id: Named[UUID | None] = Column(
        Uuid, comment="Id of the token_usage row of the segment; NULL if it could not be billed yet, or cost nothing."
    )
    is_logged: Named[bool] = Column(
        Boolean, comment="Whether that row has all tokens of the segment; false if billing failed when it was over."
    )
    used_turn: Named[bool] = Column(Boolean, comment="Whether the TURN rate applies.")
    tokens_per_minute: Named[int] = Column(Integer, comment="Tokens for each started minute of the segment.")
    rate_from: Named[datetime] = Column(Timestamp, comment="When that rate took effect.")
    first_minute: Named[int] = Column(Integer, comment="Minutes of the call before the segment.")
    minutes: Named[int] = Column(Integer, comment="Minutes of the segment.")
    seconds: Named[int] = Column(Integer, comment="Length of the segment in seconds.")
    due_before: Named[int] = Column(BigInteger, comment="Tokens due for the minutes before the segment.")
    due_after: Named[int] = Column(BigInteger, comment="Tokens due for the minutes up to the end of the segment.")
    shortfall: Named[int] = Column(Integer, comment="Tokens due in the segment that the balance did not cover.")
    __row_pos__: tuple[UUID, int, UUID | None, bool, bool, int, datetime, int, int, int, int, int, int]


call_segments: Final = Table(
    "call_segments",
    metadata,
    CallSegmentColumns,
    schema=PRIVATE_SCHEMA,
    comment="Past segments of metered calls: spans of minutes at one rate, each with its own row of token_usage.",
)
keep_pages_out(call_segments)
grants(call_segments, "call_segments", f"TABLE {qualified(call_segments)}", {})


class LiveCallColumns(TypedColumns):
    """Columns of `oblivion.live_calls`, which are those of the functions that bill a call."""

    session_id: Named[UUID] = Column(Uuid, comment="The call.")
    status: Named[str] = Column(Text, comment="ok, short, not_billed or unsettled.")
    charged: Named[int] = Column(Integer, comment="Tokens charged so far.")
    shortfall: Named[int] = Column(Integer, comment="Tokens due so far that the balance did not cover.")
    balance: Named[int | None] = Column(Integer, comment="Tokens of the account; NULL if nobody pays.")
    minutes_billed: Named[int | None] = Column(
        Integer, comment="Started minutes until the call was last seen; NULL if its start is infinite."
    )
    minutes_left: Named[int | None] = Column(
        Integer, comment="Whole minutes that the balance covers; NULL if nobody pays, or at a rate of zero."
    )
    credit_cost: Named[Decimal] = Column(Numeric(10, 4), comment="Tokens due so far.")
    __row_pos__: tuple[UUID, str, int, int, int | None, int | None, int | None, Decimal]


live_calls: Final = view(
    SQL / "oblivion.live_calls.sql",
    metadata,
    LiveCallColumns,
    reads=[call_meters, call_segments, call_sessions, user_accounts],
)
grants(live_calls, "live_calls", f"TABLE {qualified(live_calls)}", {})


class BillingIncidentColumns(TypedColumns):
    """Columns of `oblivion.billing_incidents`."""

    id: Named[int] = Column(BigInteger, Identity(always=True), primary_key=True, comment="Identifier of the incident.")
    session_id: Named[UUID] = Column(Uuid, comment="The call that could not be billed; it may have been deleted since.")
    user_id: Named[str | None] = Column(Text, comment="The user of the call.")
    action: Named[str] = Column(
        Text,
        comment=(
            "The action that could not bill the call: tick, turn, end, burn, reap or settle; unmeter if it could not"
            " undo a bill."
        ),
    )
    error_code: Named[str] = Column(Text, comment="SQLSTATE of the error.")
    message: Named[str] = Column(Text, comment="Message of the error.")
    attempts: Named[int] = Column(
        Integer,
        server_default=text("1"),
        comment="Failed attempts; action, error_code and message describe the last one.",
    )
    first_at: Named[datetime] = Column(
        Timestamp, server_default=text("clock_timestamp()"), comment="When billing first failed."
    )
    last_at: Named[datetime] = Column(
        Timestamp, server_default=text("clock_timestamp()"), comment="When billing last failed."
    )
    resolved_at: Named[datetime | None] = Column(Timestamp, comment="When the call was billed; NULL while it is not.")
    __row_pos__: tuple[int, UUID, str | None, str, str, str, int, datetime, datetime, datetime | None]


billing_incidents: Final = Table(
    "billing_incidents",
    metadata,
    BillingIncidentColumns,
    schema=PRIVATE_SCHEMA,
    comment="Calls whose billing failed, with the error; clients cannot read them.",
)
declare(
    billing_incidents,
    "index",
    "oblivion.billing_incidents_open",
    "CREATE UNIQUE INDEX billing_incidents_open ON oblivion.billing_incidents (session_id) WHERE resolved_at IS NULL",
)
keep_pages_out(billing_incidents)
grants(billing_incidents, "billing_incidents", f"TABLE {qualified(billing_incidents)}", {})

# The engine's functions belong to billing_incidents, so all tables that they name have to be created before it.
for _table in (token_rates, token_ledger, token_usage, call_segments, live_calls):
    billing_incidents.add_is_dependent_on(_table)

# It is the ledger's, but asks call_meters which calls are over.
function(billing_incidents, LEDGER_SQL / "oblivion.fold_charges.sql")
# Of all tables that have one, this is the last.
function(billing_incidents, LEDGER_SQL / "oblivion.restart_identities.sql")

# Internal functions of the engine.
function(billing_incidents, ACCESS_SQL / "oblivion.is_page.sql")
function(billing_incidents, ACCESS_SQL / "oblivion.is_intruder.sql")
function(billing_incidents, SQL / "oblivion.refuse_pages.sql")
function(billing_incidents, ACCESS_SQL / "oblivion.bar_truncate.sql")
function(billing_incidents, SQL / "oblivion.may_act_for.sql")
function(billing_incidents, SQL / "oblivion.check_key.sql")
function(billing_incidents, SQL / "oblivion.note_incident.sql")
function(billing_incidents, SQL / "oblivion.note_outcome.sql")
function(billing_incidents, SQL / "oblivion.final_meter.sql")
function(billing_incidents, SQL / "oblivion.page_lag.sql")
function(billing_incidents, SQL / "oblivion.is_fresh.sql")
function(billing_incidents, SQL / "oblivion.last_moment.sql")
function(billing_incidents, SQL / "oblivion.bill_call.sql")
function(billing_incidents, SQL / "oblivion.turn_call.sql")
function(billing_incidents, SQL / "oblivion.rate_card.sql")
function(billing_incidents, SQL / "oblivion.advance_unmetered_call.sql")

# The public functions call these, which run as the owner.
_EVERYBODY: Final = dict.fromkeys(API_ROLES, EXECUTE)
_SERVICE: Final = {"service_role": EXECUTE}
function(billing_incidents, SQL / "oblivion.advance_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "oblivion.tick_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "oblivion.end_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "oblivion.credit_account.sql")
function(billing_incidents, SQL / "oblivion.call_quote.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "oblivion.start_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "oblivion.explain_call.sql", granted=_EVERYBODY)
function(billing_incidents, SQL / "oblivion.top_up.sql", granted=_SERVICE)
function(billing_incidents, SQL / "oblivion.refund_call.sql", granted=_SERVICE)
function(billing_incidents, SQL / "oblivion.sweep_calls.sql", granted=_SERVICE)

# The API: clients and services call these.
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
function(billing_incidents, SQL / "oblivion.correct_meter.sql")
