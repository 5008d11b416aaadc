"""Roll-ups: sums that reports read instead of all rows, so that a report costs the same however long the log grows.

A trigger appends what a statement changed as a delta, in the same transaction. It updates no sum, so writers never wait
for each other. The current sum is a row of a roll-up plus the deltas that are not folded into it yet. About one
statement in a thousand folds the deltas. For a role that does not see all rows the reports count the rows that it sees.
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
    sessions: Named[int] = Column(BigInteger, comment="Rows of token_usage.")
    tokens: Named[int] = Column(BigInteger, comment="Sum of tokens_used.")
    seconds: Named[int] = Column(BigInteger, comment="Sum of the lengths in seconds; an unknown length counts as 0.")
    __row_pos__: tuple[date, str, bool, int, int, int]


daily_usage: Final = Table(
    "daily_usage",
    metadata,
    DailyUsageColumns,
    schema=PRIVATE_SCHEMA,
    comment="Usage by UTC day, mode and TURN, without the changes that are still in usage_deltas.",
)


class UserUsageColumns(TypedColumns):
    """Columns of `oblivion.user_usage`."""

    user_id: Named[str] = Column(Text, primary_key=True, comment="The account.")
    sessions: Named[int] = Column(BigInteger, comment="Rows of token_usage.")
    tokens: Named[int] = Column(BigInteger, comment="Sum of tokens_used.")
    last_usage: Named[datetime | None] = Column(
        Timestamp, comment="Newest timestamp of the rows; it may be too late if has_lost_rows."
    )
    has_lost_rows: Named[bool] = Column(
        Boolean, comment="Whether rows were deleted, or moved back in time: last_usage may be of such a row."
    )
    __row_pos__: tuple[str, int, int, datetime | None, bool]


user_usage: Final = Table(
    "user_usage",
    metadata,
    UserUsageColumns,
    schema=PRIVATE_SCHEMA,
    comment="Usage by account, without the changes that are still in usage_deltas.",
)
# A fold updates most rows: free space on the page makes that a HOT update, which writes no index.
declare(user_usage, "storage parameter", "fillfactor", "ALTER TABLE oblivion.user_usage SET (fillfactor = 50)")


class UsageDeltaColumns(TypedColumns):
    """Columns of `oblivion.usage_deltas`."""

    user_id: Named[str | None] = Column(Text, comment="The account; NULL if the delta is for a day alone.")
    usage_date: Named[date | None] = Column(Date, comment="UTC day; NULL if the delta is for an account alone.")
    mode: Named[str | None] = Column(Text, comment="voice or video; NULL if usage_date is NULL.")
    used_turn: Named[bool | None] = Column(
        Boolean, comment="Whether the TURN rate applied; NULL if usage_date is NULL."
    )
    sessions: Named[int] = Column(BigInteger, comment="Rows added; negative if they were removed.")
    tokens: Named[int] = Column(BigInteger, comment="Tokens added; negative if they were removed.")
    seconds: Named[int] = Column(BigInteger, comment="Seconds added; negative if they were removed.")
    last_usage: Named[datetime | None] = Column(
        Timestamp, comment="Newest timestamp of the rows added; NULL if none were."
    )
    has_lost_rows: Named[bool] = Column(
        Boolean, comment="Whether a removed row may have been newer than the rows added."
    )
    __row_pos__: tuple[str | None, date | None, str | None, bool | None, int, int, int, datetime | None, bool]


usage_deltas: Final = Table(
    "usage_deltas",
    metadata,
    UsageDeltaColumns,
    schema=PRIVATE_SCHEMA,
    comment="Changes of usage that are not yet folded into daily_usage and user_usage.",
)


class CallAmountColumns(TypedColumns):
    """Columns of `oblivion.daily_calls`, `call_deltas`, `daily_calls_drift`, and of what `call_amounts()` returns."""

    call_date: Named[date] = Column(Date, comment="UTC day on which the calls began.")
    calls: Named[int] = Column(BigInteger, comment="Number of calls.")
    turn_calls: Named[int] = Column(BigInteger, comment="Calls that a TURN relay carried.")
    video_calls: Named[int] = Column(BigInteger, comment="Video calls.")
    voice_calls: Named[int] = Column(BigInteger, comment="Voice-only calls.")
    credits: Named[Decimal] = Column(Numeric, comment="Sum of credit_cost, without NaN.")
    credits_unknown: Named[int] = Column(BigInteger, comment="Calls whose credit_cost is NaN.")
    ended_calls: Named[int] = Column(BigInteger, comment="Calls that ended, and have a finite length.")
    seconds: Named[Decimal] = Column(Numeric, comment="Sum of these lengths in seconds.")
    __row_pos__: tuple[date, int, int, int, int, Decimal, int, int, Decimal]


daily_calls: Final = Table(
    "daily_calls",
    metadata,
    CallAmountColumns,
    PrimaryKeyConstraint("call_date"),
    schema=PRIVATE_SCHEMA,
    comment="Calls by the UTC day on which they began, without the changes that are still in call_deltas.",
)
call_deltas: Final = Table(
    "call_deltas",
    metadata,
    CallAmountColumns,
    schema=PRIVATE_SCHEMA,
    comment="Changes of calls that are not yet folded into daily_calls.",
)

# Vacuum after 1,000 dead rows, whatever the table's size: every report scans it.
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
    # No key: nobody looks for one delta, and its index would cost each writer. So a publication sends the whole row.
    declare(_deltas, "setting", "replica identity", f"ALTER TABLE {qualified(_deltas)} REPLICA IDENTITY FULL")

# A policy that somebody added to a table of rows filters rows, not sums. So reports give sums only to roles that row
# level security does not filter here (row_security_active), and count the visible rows for all others. PUBLIC may read
# these tables because an operator's own role may query a report; the schema is private, so nobody reads them directly.
for _table in (daily_usage, user_usage, usage_deltas, daily_calls, call_deltas):
    row_level_security(_table, select=WHEN_OPEN, insert="false", update="false", delete="false")
    grants(_table, _table.name, f"TABLE {qualified(_table)}", {PUBLIC: READ})

# Created before the views that call it. It is in their plans, so every role that may query them needs EXECUTE.
function(metadata, SQL / "oblivion.call_amounts.sql", granted={PUBLIC: ("EXECUTE",)})
# So are these.
function(metadata, SQL / "oblivion.count_usage.sql", granted={PUBLIC: ("EXECUTE",)})
function(metadata, SQL / "oblivion.fold_usage.sql")
function(metadata, SQL / "oblivion.fold_calls.sql")
function(metadata, SQL / "oblivion.note_usage.sql")
function(metadata, SQL / "oblivion.note_calls.sql")
function(metadata, SQL / "oblivion.clear_rollups.sql")


# The views below select what a roll-up lacks; they are empty if it is right.
class DailyUsageDriftColumns(TypedColumns):
    """Columns of `oblivion.daily_usage_drift`."""

    usage_date: Named[date] = Column(Date, comment="UTC day.")
    mode: Named[str] = Column(Text, comment="voice or video.")
    used_turn: Named[bool] = Column(Boolean, comment="Whether the TURN rate applied.")
    sessions: Named[int] = Column(BigInteger, comment="Rows that the roll-up lacks; negative if it has too many.")
    tokens: Named[int] = Column(BigInteger, comment="Tokens that the roll-up lacks; negative if it has too many.")
    seconds: Named[int] = Column(BigInteger, comment="Seconds that the roll-up lacks; negative if it has too many.")
    __row_pos__: tuple[date, str, bool, int, int, int]


daily_usage_drift: Final = view(
    SQL / "oblivion.daily_usage_drift.sql",
    metadata,
    DailyUsageDriftColumns,
    reads=[token_usage, daily_usage, usage_deltas],
)


class UserUsageDriftColumns(TypedColumns):
    """Columns of `oblivion.user_usage_drift`."""

    user_id: Named[str] = Column(Text, comment="The account.")
    sessions: Named[int] = Column(BigInteger, comment="Rows that the roll-up lacks; negative if it has too many.")
    tokens: Named[int] = Column(BigInteger, comment="Tokens that the roll-up lacks; negative if it has too many.")
    last_usage: Named[datetime | None] = Column(Timestamp, comment="Newest timestamp of the rows.")
    has_lost_rows: Named[bool] = Column(Boolean, comment="Whether last_usage of the roll-up is later than that.")
    __row_pos__: tuple[str, int, int, datetime | None, bool]


user_usage_drift: Final = view(
    SQL / "oblivion.user_usage_drift.sql",
    metadata,
    UserUsageDriftColumns,
    reads=[token_usage, user_usage, usage_deltas],
)


daily_calls_drift: Final = view(
    SQL / "oblivion.daily_calls_drift.sql", metadata, CallAmountColumns, reads=[call_sessions, daily_calls, call_deltas]
)
function(daily_usage_drift, SQL / "oblivion.missing_usage.sql", granted={PUBLIC: ("EXECUTE",)})
function(daily_calls_drift, SQL / "oblivion.missing_calls.sql", granted={PUBLIC: ("EXECUTE",)})
DRIFTS: Final = (daily_usage_drift, user_usage_drift, daily_calls_drift)
# Reports read the first and the last until the roll-ups are filled, by functions with the rights of their caller.
for _drift in DRIFTS:
    grants(_drift, _drift.name, f"TABLE {qualified(_drift)}", {} if _drift is user_usage_drift else {PUBLIC: READ})

function(metadata, SQL / "oblivion.rebuild_rollups.sql")
