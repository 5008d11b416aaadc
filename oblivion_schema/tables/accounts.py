"""Accounts: one row for each user with tokens to spend; a balance is never below zero."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from sqlalchemy import CheckConstraint, Column, Index, Integer, Named, Table, Text, TypedColumns, text
from sqlalchemy.schema import conv

from oblivion_schema.declare.access import READ, READ_WRITE, grant, own, publish, row_level_security
from oblivion_schema.declare.ddl import trigger
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.tables.base import Timestamp, metadata


class UserAccountColumns(TypedColumns):
    """Columns of `user_accounts`."""

    user_id: Named[str] = Column(Text, primary_key=True, comment="The account's name.")
    tokens_remaining: Named[int] = Column(Integer, server_default=text("100"), comment="Tokens left to spend.")
    created_at: Named[datetime] = Column(
        Timestamp, server_default=text("now()"), comment="When the account was opened."
    )
    updated_at: Named[datetime] = Column(
        Timestamp, server_default=text("now()"), comment="When the row last changed; kept by a trigger."
    )
    email: Named[str | None] = Column(Text, comment="Where to reach the user.")
    subscription_tier: Named[str] = Column(
        Text, server_default=text("'free'"), comment="What the user pays for: free, pro or enterprise."
    )


user_accounts: Final = Table(
    "user_accounts",
    metadata,
    UserAccountColumns,
    CheckConstraint("tokens_remaining >= 0", name=conv("positive_tokens")),
    CheckConstraint("subscription_tier IN ('free', 'pro', 'enterprise')", name="subscription_tier"),
    # No index on tokens_remaining: each billed call would have to maintain it, and no query looks a balance up.
    Index("idx_user_accounts_email", "email"),
    comment="Token balances, one row for each account.",
)
# Balance and tier are what an account pays with: a user of the authenticated mode only says where to reach him.
row_level_security(user_accounts, select=own("user_id"), update=own("user_id"))
grant(
    user_accounts,
    when_open=dict.fromkeys(API_ROLES, READ_WRITE),
    authenticated={"authenticated": [*READ, "UPDATE (email)"], "service_role": READ_WRITE},
)
publish(user_accounts)

trigger(user_accounts, "update_user_accounts_updated_at", "BEFORE UPDATE", "public.update_updated_at_column")
# These have no condition, nor has the one above: PostgreSQL parses a condition on every statement.
trigger(user_accounts, "open_ledger", "AFTER INSERT", "oblivion.write_ledger")
trigger(user_accounts, "write_ledger", "AFTER UPDATE", "oblivion.write_ledger")
trigger(user_accounts, "close_ledger", "AFTER DELETE", "oblivion.write_ledger")
trigger(user_accounts, "close_ledger_of_all", "BEFORE TRUNCATE", "oblivion.close_ledger")

DEMO_ACCOUNTS: Final = (
    {"user_id": "demo_user", "tokens_remaining": 500, "subscription_tier": "free", "email": "demo@oblivn.com"},
    {"user_id": "test_user_1", "tokens_remaining": 100, "subscription_tier": "free", "email": "test1@oblivn.com"},
    {"user_id": "test_user_2", "tokens_remaining": 250, "subscription_tier": "pro", "email": "test2@oblivn.com"},
    {"user_id": "developer", "tokens_remaining": 1000, "subscription_tier": "enterprise", "email": "dev@oblivn.com"},
)
"""Accounts for trying things out. Revision 003 opens them, with these balances, unless it is told `-x demo=no`."""
