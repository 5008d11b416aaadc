"""Views that cross tables. A view of one table stands in that table's module."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import BigInteger, Column, Integer, Named, Text, TypedColumns

from .access import grant_reading
from .accounts import user_accounts
from .base import Timestamp, metadata
from .ddl import view
from .usage import token_usage


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
  coalesce(sum(u.tokens_used), 0) AS total_tokens_used,
  count(u.id) AS total_sessions,
  max(u."timestamp") AS last_usage
FROM public.user_accounts AS a
LEFT JOIN public.token_usage AS u USING (user_id)
GROUP BY a.user_id, a.tokens_remaining, a.subscription_tier, a.created_at""",
    reads=[user_accounts, token_usage],
    comment="What each account has left and what it used, one row for each account.",
)
grant_reading(user_token_summary)
