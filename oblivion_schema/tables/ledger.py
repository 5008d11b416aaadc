"""The ledger: one row for each change of a balance, whoever makes it, so that a balance is the sum of its rows.

Triggers on the accounts write it; nobody but the owner can change what stands in it.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, Column, Identity, Integer, Named, Table, Text, TypedColumns, Uuid, text

from oblivion_schema.declare.access import READ, grant, own, row_level_security
from oblivion_schema.declare.ddl import declare, function, grants, qualified, view
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.tables.accounts import user_accounts
from oblivion_schema.tables.base import Timestamp, metadata

SQL: Final = Path(__file__).with_suffix("")


class TokenLedgerColumns(TypedColumns):
    """Columns of `token_ledger`."""

    user_id: Named[str] = Column(Text, primary_key=True, comment="The account; it may be gone by now.")
    id: Named[int] = Column(
        BigInteger, Identity(always=True), primary_key=True, comment="The entry; those of one account are in order."
    )
    created_at: Named[datetime] = Column(
        Timestamp, server_default=text("clock_timestamp()"), comment="When the balance changed."
    )
    kind: Named[str] = Column(
        Text,
        comment="opening, closing (of the account), charge, refund, top_up; direct (old clients), carried (the past).",
    )
    tokens: Named[int] = Column(Integer, comment="Tokens that came in, or, below zero, went out.")
    balance: Named[int] = Column(Integer, comment="What the account had then.")
    session_id: Named[UUID | None] = Column(Uuid, comment="The call that was charged or refunded.")
    key: Named[str | None] = Column(Text, comment="The key by which a credit is made once.")


# No CHECK: nobody but the trigger writes here.
token_ledger: Final = Table(
    "token_ledger",
    metadata,
    TokenLedgerColumns,
    comment="One row for each change of a balance: a balance is the sum of its rows.",
)
# Not an Index(): its postgresql_where would import the whole dialect together with this package.
declare(
    token_ledger,
    "index",
    "idx_token_ledger_key",
    "CREATE UNIQUE INDEX idx_token_ledger_key ON public.token_ledger (user_id, key) WHERE key IS NOT NULL",
)
row_level_security(token_ledger, select=own("user_id"), insert="false", update="false", delete="false")
grant(
    token_ledger,
    when_open=dict.fromkeys(API_ROLES, READ),
    authenticated=dict.fromkeys(API_ROLES[1:], READ),
)

function(metadata, SQL / "oblivion.write_ledger.sql")
function(metadata, SQL / "oblivion.close_ledger.sql")


class BalanceAuditColumns(TypedColumns):
    """Columns of `oblivion.balance_audit`."""

    user_id: Named[str] = Column(Text, comment="The account.")
    balance: Named[int] = Column(Integer, comment="What it has; 0 where it is gone.")
    ledger: Named[int] = Column(BigInteger, comment="The sum of its rows in the ledger.")
    drift: Named[int] = Column(BigInteger, comment="balance less ledger: 0, or something changed past the triggers.")
    gaps: Named[int] = Column(
        BigInteger, comment="Rows whose balance is not that of the row before and their tokens: 0, or rows are missing."
    )


balance_audit: Final = view(
    SQL / "oblivion.balance_audit.sql", metadata, BalanceAuditColumns, reads=[user_accounts, token_ledger]
)
grants(balance_audit, "balance_audit", f"TABLE {qualified(balance_audit)}", {})

function(token_ledger, SQL / "oblivion.trim_ledger.sql")
