"""Accounts: one row for each user with tokens to spend; a balance is never below zero."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import CheckConstraint, Column, Index, Integer, Named, Table, Text, TypedColumns, text
from sqlalchemy.schema import conv

from oblivion_schema.declare.access import (
    EXECUTE,
    IS_NOT_THE_ENGINE,
    METERED,
    READ,
    READ_WRITE,
    grant,
    own,
    publish,
    row_level_security,
)
from oblivion_schema.declare.ddl import declare, function, trigger
from oblivion_schema.declare.privileges import API_ROLES, PUBLIC
from oblivion_schema.tables.base import Timestamp, metadata

SQL: Final = Path(__file__).with_suffix("")


class UserAccountColumns(TypedColumns):
    """Columns of `user_accounts`."""

    user_id: Named[str] = Column(Text, primary_key=True, comment="The user who owns the account.")
    tokens_remaining: Named[int] = Column(Integer, server_default=text("100"), comment="Tokens left to spend.")
    created_at: Named[datetime] = Column(
        Timestamp, server_default=text("now()"), comment="When the account was opened."
    )
    updated_at: Named[datetime] = Column(
        Timestamp, server_default=text("now()"), comment="When the row last changed; a trigger sets it."
    )
    email: Named[str | None] = Column(Text, comment="Email address of the user.")
    subscription_tier: Named[str] = Column(
        Text, server_default=text("'free'"), comment="Plan of the user: free, pro or enterprise."
    )
    __row_pos__: tuple[str, int, datetime, datetime, str | None, str]


user_accounts: Final = Table(
    "user_accounts",
    metadata,
    UserAccountColumns,
    CheckConstraint("tokens_remaining >= 0", name=conv("positive_tokens")),
    CheckConstraint("subscription_tier IN ('free', 'pro', 'enterprise')", name="subscription_tier"),
    # No index on tokens_remaining: every charge would have to update it, and no query searches by balance.
    Index("idx_user_accounts_email", "email"),
    comment="Token balances, one row for each account.",
)
# Billing updates an account every minute: free space on the page makes that a HOT update, which writes no index.
declare(user_accounts, "storage parameter", "fillfactor", "ALTER TABLE public.user_accounts SET (fillfactor = 50)")
# In the authenticated mode a user may change only the email of the account, not the balance or the tier. If pages are
# metered a user may sign in and write a balance, as clients do: triggers see to it that no balance changes.
_KEEPS = (
    "oblivion.keeps_account(user_id, CASE WHEN oblivion.page_billing() = 'trusted' THEN tokens_remaining END,"
    " subscription_tier, created_at)"
)
function(user_accounts, SQL / "oblivion.keeps_account.sql", granted={PUBLIC: EXECUTE})
row_level_security(
    user_accounts,
    select=own("user_id"),
    insert=own("user_id", further=METERED),
    update=(own("user_id"), own("user_id", further=_KEEPS)),
)
grant(
    user_accounts,
    when_open=dict.fromkeys(API_ROLES, READ_WRITE),
    authenticated={"authenticated": [*READ, "UPDATE (email)"], "service_role": READ_WRITE},
    when_metered={"authenticated": ["INSERT (user_id, tokens_remaining, email)", "UPDATE (user_id, tokens_remaining)"]},
)
publish(user_accounts)

trigger(user_accounts, "guard_account", "BEFORE INSERT OR DELETE", "oblivion.guard_account", when=IS_NOT_THE_ENGINE)
trigger(user_accounts, "update_user_accounts_updated_at", "BEFORE UPDATE", "oblivion.update_account")
# These triggers, and the one above, have no WHEN condition: PostgreSQL would parse it on every statement.
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
"""Demo accounts. Revision 003 inserts them with these balances; `-x demo=no` leaves them out."""
