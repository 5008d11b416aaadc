"""Roll-ups: the sums that reports read instead of each row, so that they cost the same however long the log has grown.

What a statement changes is appended by a trigger as a delta, in the same transaction; nothing is updated, so writers
wait for nobody. A sum is a row of a roll-up and the deltas that are not yet in it; one of about a thousand statements
folds them in. For whoever does not see all rows those that he sees are counted instead (reports).
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Named,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    TypedColumns,
)

from oblivion_schema.declare.access import READ, WHEN_OPEN, row_level_security
from oblivion_schema.declare.ddl import (
    declare,
    function,
    grants,
    qualified,
    view,
)
from oblivion_schema.declare.privileges import PUBLIC
from oblivion_schema.tables.base import PRIVATE_SCHEMA, Timestamp, metadata
from oblivion_schema.tables.calls import call_sessions
from oblivion_schema.tables.usage import token_usage

SQL: Final = Path(__file__).with_suffix("")


class DailyUsageColumns(TypedColumns):
    """Columns of `oblivion.daily_usage`."""

    usage_date: Named[date] = Column(Date, primary_key=True, comment="UTC day on which the usage was logged.")
    mode: Named[str] = Column(Text, primary_key=True, comment="voice or video.")
    used_turn: Named[bool] = Column(Boolean, primary_key=True, comment="Whether the TURN rate applied.")
    sessions: Named[int] = Column(BigInteger, comment="Rows of usage.")
    tokens: Named[int] = Column(BigInteger, comment="Sum of their tokens.")
    seconds: Named[int] = Column(BigInteger, comment="Sum of their lengths, unknown ones as zero.")


daily_usage: Final = Table(
    "daily_usage",
    metadata,
    DailyUsageColumns,
    schema=PRIVATE_SCHEMA,
    comment="Usage by UTC day, mode and TURN, but for what usage_deltas holds.",
)


class UserUsageColumns(TypedColumns):
    """Columns of `oblivion.user_usage`."""

    user_id: Named[str] = Column(Text, primary_key=True, comment="The account.")
    sessions: Named[int] = Column(BigInteger, comment="Its rows of usage.")
    tokens: Named[int] = Column(BigInteger, comment="Sum of their tokens.")
    last_usage: Named[datetime | None] = Column(Timestamp, comment="The newest of them, unless has_lost_rows.")
    has_lost_rows: Named[bool] = Column(
        Boolean, comment="Rows were deleted, or moved back in time: last_usage may be of one of those."
    )


user_usage: Final = Table(
    "user_usage",
    metadata,
    UserUsageColumns,
    schema=PRIVATE_SCHEMA,
    comment="Usage by account, but for what usage_deltas holds.",
)
# A fold writes to most of its rows: with room on its page a row needs no new entry in the index.
declare(user_usage, "storage parameter", "fillfactor", "ALTER TABLE oblivion.user_usage SET (fillfactor = 50)")


class UsageDeltaColumns(TypedColumns):
    """Columns of `oblivion.usage_deltas`."""

    user_id: Named[str | None] = Column(Text, comment="The account; NULL where it is a day's alone.")
    usage_date: Named[date | None] = Column(Date, comment="UTC day; NULL where it is an account's alone.")
    mode: Named[str | None] = Column(Text, comment="voice or video; NULL as the day.")
    used_turn: Named[bool | None] = Column(Boolean, comment="Whether the TURN rate applied; NULL as the day.")
    sessions: Named[int] = Column(BigInteger, comment="Rows more, or, below zero, fewer.")
    tokens: Named[int] = Column(BigInteger, comment="Tokens more.")
    seconds: Named[int] = Column(BigInteger, comment="Seconds more.")
    last_usage: Named[datetime | None] = Column(Timestamp, comment="The newest of the rows that came.")
    has_lost_rows: Named[bool] = Column(Boolean, comment="Rows that went may have been newer than those that came.")


usage_deltas: Final = Table(
    "usage_deltas",
    metadata,
    UsageDeltaColumns,
    schema=PRIVATE_SCHEMA,
    comment="What changed in usage and is not yet in daily_usage and user_usage.",
)


class CallAmountColumns(TypedColumns):
    """Columns of `oblivion.daily_calls` and `oblivion.call_deltas`, and of what `oblivion.call_amounts()` gives."""

    call_date: Named[date] = Column(Date, comment="UTC day on which the calls began.")
    calls: Named[int] = Column(BigInteger, comment="Calls.")
    turn_calls: Named[int] = Column(BigInteger, comment="Those that a TURN relay carried.")
    video_calls: Named[int] = Column(BigInteger, comment="Those with video.")
    voice_calls: Named[int] = Column(BigInteger, comment="Those with voice only.")
    credits: Named[Decimal] = Column(Numeric, comment="Sum of their credit_cost, but for NaN.")
    credits_unknown: Named[int] = Column(BigInteger, comment="Those whose credit_cost is NaN.")
    ended_calls: Named[int] = Column(BigInteger, comment="Those that ended, and have a length.")
    seconds: Named[Decimal] = Column(Numeric, comment="Sum of these lengths.")


daily_calls: Final = Table(
    "daily_calls",
    metadata,
    CallAmountColumns,
    PrimaryKeyConstraint("call_date"),
    schema=PRIVATE_SCHEMA,
    comment="Calls by the UTC day on which they began, but for what call_deltas holds.",
)
call_deltas: Final = Table(
    "call_deltas",
    metadata,
    CallAmountColumns,
    schema=PRIVATE_SCHEMA,
    comment="What changed in calls and is not yet in daily_calls.",
)

# However many rows autovacuum has found there once, a thousand dead ones are many to those who read it.
for _deltas in (usage_deltas, call_deltas):
    declare(
        _deltas,
        "storage parameter",
        "autovacuum_vacuum_scale_factor",
        f"ALTER TABLE {qualified(_deltas)} SET (autovacuum_vacuum_scale_factor = 0)",
    )
    declare(
        _deltas,
        "storage parameter",
        "autovacuum_vacuum_threshold",
        f"ALTER TABLE {qualified(_deltas)} SET (autovacuum_vacuum_threshold = 1000)",
    )

# A policy that somebody added to a table of rows filters rows, not sums. So reports give sums only to roles that row
# level security does not filter here (row_security_active), and count the visible rows for all others. PUBLIC may read
# these tables because an operator's own role may query a report; the schema is private, so nobody reads them directly.
for _table in (daily_usage, user_usage, usage_deltas, daily_calls, call_deltas):
    row_level_security(_table, select=WHEN_OPEN, insert="false", update="false", delete="false")
    grants(_table, _table.name, f"TABLE {qualified(_table)}", {PUBLIC: READ})

# Before the views that ask it; it is in their plans, so whoever may query them has to be able to call it.
function(metadata, SQL / "oblivion.call_amounts.sql", granted={PUBLIC: ("EXECUTE",)})
function(metadata, SQL / "oblivion.fold_usage.sql")
function(metadata, SQL / "oblivion.fold_calls.sql")
function(metadata, SQL / "oblivion.note_usage.sql")
function(metadata, SQL / "oblivion.note_calls.sql")
function(metadata, SQL / "oblivion.clear_rollups.sql")


# What the views below select is what a roll-up lacks: 0 rows where it is right.
class DailyUsageDriftColumns(TypedColumns):
    """Columns of `oblivion.daily_usage_drift`."""

    usage_date: Named[date] = Column(Date, comment="The day.")
    mode: Named[str] = Column(Text, comment="voice or video.")
    used_turn: Named[bool] = Column(Boolean, comment="Whether the TURN rate applied.")
    sessions: Named[int] = Column(BigInteger, comment="Rows that are missing, or, below zero, too many.")
    tokens: Named[int] = Column(BigInteger, comment="Tokens that are missing.")
    seconds: Named[int] = Column(BigInteger, comment="Seconds that are missing.")


daily_usage_drift: Final = view(
    SQL / "oblivion.daily_usage_drift.sql",
    metadata,
    DailyUsageDriftColumns,
    reads=[token_usage, daily_usage, usage_deltas],
)


class UserUsageDriftColumns(TypedColumns):
    """Columns of `oblivion.user_usage_drift`."""

    user_id: Named[str] = Column(Text, comment="The account.")
    sessions: Named[int] = Column(BigInteger, comment="Rows that are missing, or, below zero, too many.")
    tokens: Named[int] = Column(BigInteger, comment="Tokens that are missing.")
    last_usage: Named[datetime | None] = Column(Timestamp, comment="When it last used any.")
    has_lost_rows: Named[bool] = Column(Boolean, comment="Whether the roll-up takes a later time for that.")


user_usage_drift: Final = view(
    SQL / "oblivion.user_usage_drift.sql",
    metadata,
    UserUsageDriftColumns,
    reads=[token_usage, user_usage, usage_deltas],
)


daily_calls_drift: Final = view(
    SQL / "oblivion.daily_calls_drift.sql", metadata, CallAmountColumns, reads=[call_sessions, daily_calls, call_deltas]
)
DRIFTS: Final = (daily_usage_drift, user_usage_drift, daily_calls_drift)
for _drift in DRIFTS:
    grants(_drift, _drift.name, f"TABLE {qualified(_drift)}", {})

function(metadata, SQL / "oblivion.rebuild_rollups.sql")
