"""Usage: the log of tokens consumed; each row belongs to an account, and names a call."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    Named,
    Numeric,
    Table,
    Text,
    TypedColumns,
    Uuid,
    text,
)
from sqlalchemy.schema import conv

from .access import READ, READ_WRITE, grant, grant_reading, own, row_level_security
from .base import Timestamp, metadata
from .ddl import declare, view
from .privileges import API_ROLES


class TokenUsageColumns(TypedColumns):
    """Columns of `token_usage`."""

    id: Named[UUID] = Column(Uuid, primary_key=True, server_default=text("gen_random_uuid()"), comment="The row.")
    user_id: Named[str] = Column(
        Text,
        ForeignKey("user_accounts.user_id", name=conv("fk_token_usage_user_id"), ondelete="CASCADE"),
        comment="The account that paid.",
    )
    session_id: Named[str] = Column(Text, comment="The call, its id as text; old rows name calls that no longer exist.")
    tokens_used: Named[int] = Column(Integer, comment="Tokens that the call cost.")
    timestamp: Named[datetime] = Column(Timestamp, server_default=text("now()"), comment="When the usage was logged.")
    mode: Named[str] = Column(Text, comment="What was priced: voice (a voice-only call) or video.")
    used_turn: Named[bool] = Column(Boolean, comment="Whether the TURN rate applied.")
    duration_seconds: Named[int | None] = Column(Integer, comment="Length of the call in seconds, where known.")


token_usage: Final = Table(
    "token_usage",
    metadata,
    TokenUsageColumns,
    CheckConstraint("tokens_used >= 0", name=conv("positive_token_usage")),
    CheckConstraint("mode IN ('voice', 'video')", name="mode"),
    CheckConstraint("duration_seconds IS NULL OR duration_seconds >= 0", name=conv("valid_duration")),
    Index("idx_token_usage_session_id", "session_id"),
    Index("idx_token_usage_timestamp", "timestamp"),
    # Each serves its first column alone, too: an index on that by itself would be its prefix.
    Index("idx_token_usage_user_date", "user_id", "timestamp"),
    Index("idx_token_usage_billing", "mode", "used_turn", "timestamp"),
    comment="Log of the tokens that calls consumed.",
)
# A metered call is written to each minute: with room on its page no index is.
declare(token_usage, "storage parameter", "fillfactor", "ALTER TABLE public.token_usage SET (fillfactor = 85)")
row_level_security(token_usage, select=own("user_id"))
grant(
    token_usage,
    when_open=dict.fromkeys(API_ROLES, READ_WRITE),
    authenticated={"authenticated": READ, "service_role": READ_WRITE},
)


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
    "daily_token_usage",
    metadata,
    DailyTokenUsageColumns,
    """\
SELECT
  ("timestamp" AT TIME ZONE 'UTC')::date AS usage_date,
  mode,
  used_turn,
  count(*) AS session_count,
  sum(tokens_used) AS total_tokens,
  avg(tokens_used) AS avg_tokens_per_session,
  coalesce(sum(duration_seconds), 0) / 60.0 AS total_minutes
FROM public.token_usage
GROUP BY usage_date, mode, used_turn
ORDER BY usage_date DESC, mode, used_turn""",
    reads=[token_usage],
    comment="Usage by UTC day, mode and TURN, newest day first.",
)
grant_reading(daily_token_usage)
