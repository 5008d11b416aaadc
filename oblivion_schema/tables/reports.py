"""Reports: views that sum calls and usage.

A role that sees all rows gets the sums of the roll-ups. For another role the views count the rows that it sees. Each
view names the table before its roll-ups: a query locks them in this order, as TRUNCATE does.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Date, Integer, Named, Numeric, Text, TypedColumns

from oblivion_schema.declare.access import grant_reading
from oblivion_schema.declare.ddl import view
from oblivion_schema.tables.accounts import user_accounts
from oblivion_schema.tables.backfills import backfills
from oblivion_schema.tables.base import Timestamp, metadata
from oblivion_schema.tables.calls import call_sessions
from oblivion_schema.tables.rollups import (
    call_deltas,
    daily_calls,
    daily_calls_drift,
    daily_usage,
    daily_usage_drift,
    usage_deltas,
    user_usage,
)
from oblivion_schema.tables.usage import token_usage

SQL: Final = Path(__file__).with_suffix("")


class DailyBillingSummaryColumns(TypedColumns):
    """Columns of `daily_billing_summary`."""

    call_date: Named[date] = Column(Date, comment="UTC day on which the calls began.")
    total_calls: Named[int] = Column(BigInteger, comment="Calls that began on that day.")
    turn_calls: Named[int] = Column(BigInteger, comment="Calls that a TURN relay carried.")
    video_calls: Named[int] = Column(BigInteger, comment="Video calls.")
    voice_calls: Named[int] = Column(BigInteger, comment="Voice-only calls.")
    total_credits: Named[Decimal] = Column(Numeric, comment="Sum of credit_cost.")
    avg_duration_minutes: Named[Decimal | None] = Column(
        Numeric, comment="Mean length in minutes of the calls that ended; NULL if none did."
    )
    __row_pos__: tuple[date, int, int, int, int, Decimal, Decimal | None]


daily_billing_summary: Final = view(
    SQL / "public.daily_billing_summary.sql",
    metadata,
    DailyBillingSummaryColumns,
    reads=[call_sessions, daily_calls, call_deltas, backfills, daily_calls_drift],
)
grant_reading(daily_billing_summary)


class DailyTokenUsageColumns(TypedColumns):
    """Columns of `daily_token_usage`."""

    usage_date: Named[date] = Column(Date, comment="UTC day on which the usage was logged.")
    mode: Named[str] = Column(Text, comment="voice or video.")
    used_turn: Named[bool] = Column(Boolean, comment="Whether the TURN rate applied.")
    session_count: Named[int] = Column(BigInteger, comment="Rows of token_usage.")
    total_tokens: Named[int] = Column(BigInteger, comment="Sum of tokens_used.")
    avg_tokens_per_session: Named[Decimal] = Column(Numeric, comment="Mean of tokens_used.")
    total_minutes: Named[Decimal] = Column(
        Numeric, comment="Sum of the lengths in minutes; an unknown length counts as 0."
    )
    __row_pos__: tuple[date, str, bool, int, int, Decimal, Decimal]


daily_token_usage: Final = view(
    SQL / "public.daily_token_usage.sql",
    metadata,
    DailyTokenUsageColumns,
    reads=[token_usage, daily_usage, usage_deltas, backfills, daily_usage_drift],
)
grant_reading(daily_token_usage)


class UserTokenSummaryColumns(TypedColumns):
    """Columns of `user_token_summary`."""

    user_id: Named[str] = Column(Text, comment="The account.")
    tokens_remaining: Named[int] = Column(Integer, comment="Tokens left to spend.")
    subscription_tier: Named[str] = Column(Text, comment="free, pro or enterprise.")
    account_created: Named[datetime] = Column(Timestamp, comment="When the account was opened.")
    total_tokens_used: Named[int] = Column(BigInteger, comment="Sum of tokens_used of the account; 0 without usage.")
    total_sessions: Named[int] = Column(BigInteger, comment="Rows of token_usage of the account; 0 without usage.")
    last_usage: Named[datetime | None] = Column(
        Timestamp, comment="When the account last used tokens; NULL without usage."
    )
    __row_pos__: tuple[str, int, str, datetime, int, int, datetime | None]


user_token_summary: Final = view(
    SQL / "public.user_token_summary.sql",
    metadata,
    UserTokenSummaryColumns,
    reads=[user_accounts, token_usage, user_usage, usage_deltas, backfills],
)
grant_reading(user_token_summary)
