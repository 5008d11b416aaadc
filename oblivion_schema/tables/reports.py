"""The views that sum calls and usage: from the roll-ups for who sees all rows, else from the rows that are seen.

Rows come before roll-ups in each, for whoever reads locks them in this order, and TRUNCATE does, too.
"""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Final

from sqlalchemy import BigInteger, Boolean, Column, Date, Integer, Named, Numeric, Text, TypedColumns

from oblivion_schema.declare.access import grant_reading
from oblivion_schema.declare.ddl import view
from oblivion_schema.tables.accounts import user_accounts
from oblivion_schema.tables.base import Timestamp, metadata
from oblivion_schema.tables.calls import call_sessions
from oblivion_schema.tables.rollups import call_deltas, daily_calls, daily_usage, sees_all, usage_deltas, user_usage
from oblivion_schema.tables.usage import token_usage


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
    "daily_billing_summary",
    metadata,
    DailyBillingSummaryColumns,
    """\
SELECT
  call_date,
  sum(calls)::bigint AS total_calls,
  sum(turn_calls)::bigint AS turn_calls,
  sum(video_calls)::bigint AS video_calls,
  sum(voice_calls)::bigint AS voice_calls,
  CASE WHEN sum(credits_unknown) > 0 THEN 'NaN' ELSE sum(credits) END AS total_credits,
  sum(seconds) / (60 * nullif(sum(ended_calls), 0)) AS avg_duration_minutes
FROM (
  SELECT
    a.call_date,
    a.calls,
    a.turn_calls,
    a.video_calls,
    a.voice_calls,
    a.credits,
    a.credits_unknown,
    a.ended_calls,
    a.seconds
  FROM public.call_sessions AS c
  CROSS JOIN LATERAL oblivion.call_amounts(c.start_time, c.end_time, c.mode, c.used_turn, c.credit_cost) AS a
  WHERE NOT oblivion.open_access() AND NOT EXISTS (SELECT FROM oblivion.sees_all)
  UNION ALL
  SELECT call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
  FROM oblivion.daily_calls
  WHERE oblivion.open_access() OR EXISTS (SELECT FROM oblivion.sees_all)
  UNION ALL
  SELECT call_date, calls, turn_calls, video_calls, voice_calls, credits, credits_unknown, ended_calls, seconds
  FROM oblivion.call_deltas
  WHERE oblivion.open_access() OR EXISTS (SELECT FROM oblivion.sees_all)
) AS amounts
GROUP BY call_date
HAVING sum(calls) <> 0
ORDER BY call_date DESC""",
    reads=[call_sessions, daily_calls, call_deltas, sees_all],
    comment="Calls by the UTC day on which they began, newest day first.",
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
    "daily_token_usage",
    metadata,
    DailyTokenUsageColumns,
    """\
SELECT
  usage_date,
  mode,
  used_turn,
  sum(sessions)::bigint AS session_count,
  sum(tokens)::bigint AS total_tokens,
  sum(tokens) / sum(sessions) AS avg_tokens_per_session,
  sum(seconds) / 60.0 AS total_minutes
FROM (
  SELECT
    ("timestamp" AT TIME ZONE 'UTC')::date AS usage_date,
    mode,
    used_turn,
    1::bigint AS sessions,
    tokens_used::bigint AS tokens,
    coalesce(duration_seconds, 0)::bigint AS seconds
  FROM public.token_usage
  WHERE NOT oblivion.open_access() AND NOT EXISTS (SELECT FROM oblivion.sees_all)
  UNION ALL
  SELECT usage_date, mode, used_turn, sessions, tokens, seconds
  FROM oblivion.daily_usage
  WHERE oblivion.open_access() OR EXISTS (SELECT FROM oblivion.sees_all)
  UNION ALL
  SELECT usage_date, mode, used_turn, sessions, tokens, seconds
  FROM oblivion.usage_deltas
  WHERE usage_date IS NOT NULL AND (oblivion.open_access() OR EXISTS (SELECT FROM oblivion.sees_all))
) AS amounts
GROUP BY usage_date, mode, used_turn
HAVING sum(sessions) <> 0
ORDER BY usage_date DESC, mode, used_turn""",
    reads=[token_usage, daily_usage, usage_deltas, sees_all],
    comment="Usage by UTC day, mode and TURN, newest day first.",
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
    "user_token_summary",
    metadata,
    UserTokenSummaryColumns,
    """\
SELECT
  a.user_id,
  a.tokens_remaining,
  a.subscription_tier,
  a.created_at AS account_created,
  coalesce(u.tokens, 0)::bigint AS total_tokens_used,
  coalesce(u.sessions, 0)::bigint AS total_sessions,
  CASE
    WHEN u.has_lost_rows THEN (SELECT max(t."timestamp") FROM public.token_usage AS t WHERE t.user_id = a.user_id)
    ELSE u.last_usage
  END AS last_usage
FROM public.user_accounts AS a
LEFT JOIN (
  SELECT
    user_id,
    sum(sessions) AS sessions,
    sum(tokens) AS tokens,
    max(last_usage) AS last_usage,
    bool_or(has_lost_rows) AS has_lost_rows
  FROM (
    SELECT
      user_id,
      1::bigint AS sessions,
      tokens_used::bigint AS tokens,
      "timestamp" AS last_usage,
      false AS has_lost_rows
    FROM public.token_usage
    WHERE NOT oblivion.open_access() AND NOT EXISTS (SELECT FROM oblivion.sees_all)
    UNION ALL
    SELECT user_id, sessions, tokens, last_usage, has_lost_rows
    FROM oblivion.user_usage
    WHERE oblivion.open_access() OR EXISTS (SELECT FROM oblivion.sees_all)
    UNION ALL
    SELECT user_id, sessions, tokens, last_usage, has_lost_rows
    FROM oblivion.usage_deltas
    WHERE user_id IS NOT NULL AND (oblivion.open_access() OR EXISTS (SELECT FROM oblivion.sees_all))
  ) AS amounts
  GROUP BY user_id
) AS u ON u.user_id = a.user_id""",
    reads=[user_accounts, token_usage, user_usage, usage_deltas, sees_all],
    comment="What each account has left and what it used, one row for each account.",
)
grant_reading(user_token_summary)
