"""The views that sum calls and usage: from the roll-ups for who sees all rows, else from the rows that are seen.

Rows come before roll-ups in each, for whoever reads locks them in this order, and TRUNCATE does, too.
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
from oblivion_schema.tables.base import Timestamp, metadata
from oblivion_schema.tables.calls import call_sessions
from oblivion_schema.tables.rollups import call_deltas, daily_calls, daily_usage, usage_deltas, user_usage
from oblivion_schema.tables.usage import token_usage

SQL: Final = Path(__file__).with_suffix("")


class DailyBillingSummaryColumns(TypedColumns):
    """Columns of `daily_billing_summary`."""

    call_date: Named[date] = Column(Date, comment="UTC day on which the calls began.")
    total_calls: Named[int] = Column(BigInteger, comment="Calls of that day.")
    turn_calls: Named[int] = Column(BigInteger, comment="Those that a TURN relay carried.")
    video_calls: Named[int] = Column(BigInteger, comment="Those with video.")
    voice_calls: Named[int] = Column(BigInteger, comment="Those with voice only.")
    total_credits: Named[Decimal] = Column(Numeric, comment="Sum of their credit_cost.")
    avg_duration_minutes: Named[Decimal | None] = Column(
        Numeric, comment="Mean length in minutes of those that ended; NULL where none did."
    )


daily_billing_summary: Final = view(
    SQL / "public.daily_billing_summary.sql",
    metadata,
    DailyBillingSummaryColumns,
    reads=[call_sessions, daily_calls, call_deltas],
)
grant_reading(daily_billing_summary)


class DailyTokenUsageColumns(TypedColumns):
    """Columns of `daily_token_usage`."""

    usage_date: Named[date] = Column(Date, comment="UTC day on which the usage was logged.")
    mode: Named[str] = Column(Text, comment="voice or video.")
    used_turn: Named[bool] = Column(Boolean, comment="Whether the TURN rate applied.")
    session_count: Named[int] = Column(BigInteger, comment="Rows of usage.")
    total_tokens: Named[int] = Column(BigInteger, comment="Sum of their tokens.")
    avg_tokens_per_session: Named[Decimal] = Column(Numeric, comment="Mean of their tokens.")
    total_minutes: Named[Decimal] = Column(Numeric, comment="Sum of their lengths in minutes, unknown ones as zero.")


daily_token_usage: Final = view(
    SQL / "public.daily_token_usage.sql",
    metadata,
    DailyTokenUsageColumns,
    reads=[token_usage, daily_usage, usage_deltas],
)
grant_reading(daily_token_usage)


class UserTokenSummaryColumns(TypedColumns):
    """Columns of `user_token_summary`."""

    user_id: Named[str] = Column(Text, comment="The account.")
    tokens_remaining: Named[int] = Column(Integer, comment="Tokens left to spend.")
    subscription_tier: Named[str] = Column(Text, comment="free, pro or enterprise.")
    account_created: Named[datetime] = Column(Timestamp, comment="When the account was opened.")
    total_tokens_used: Named[int] = Column(BigInteger, comment="Tokens that it ever used; 0 where none were.")
    total_sessions: Named[int] = Column(BigInteger, comment="Its rows of usage; 0 where there are none.")
    last_usage: Named[datetime | None] = Column(Timestamp, comment="When it last used any; NULL where it never did.")


user_token_summary: Final = view(
    SQL / "public.user_token_summary.sql",
    metadata,
    UserTokenSummaryColumns,
    reads=[user_accounts, token_usage, user_usage, usage_deltas],
)
grant_reading(user_token_summary)
