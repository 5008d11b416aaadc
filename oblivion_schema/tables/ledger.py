"""The ledger: one row for each change of a balance, whoever makes it, so that a balance is the sum of its rows.

Triggers on the accounts write it; nobody but the owner can change what stands in it.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import BigInteger, Column, Identity, Integer, Named, Table, Text, TypedColumns, Uuid, text

from oblivion_schema.declare.access import READ, grant, own, row_level_security
from oblivion_schema.declare.ddl import declare, function, grants, qualified, trigger, view
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.tables.accounts import user_accounts
from oblivion_schema.tables.base import PRIVATE_SCHEMA, Timestamp, metadata


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

function(metadata, "oblivion.write_ledger", comment="Trigger: writes a row of the ledger for each change of a balance.")
function(metadata, "oblivion.close_ledger", comment="Trigger: writes a closing row for each account before TRUNCATE.")
trigger(user_accounts, "open_ledger", "AFTER INSERT", "oblivion.write_ledger")
# No condition here, nor on the table above: PostgreSQL reads each anew for each statement.
trigger(user_accounts, "write_ledger", "AFTER UPDATE", "oblivion.write_ledger")
trigger(user_accounts, "close_ledger", "AFTER DELETE", "oblivion.write_ledger")
trigger(user_accounts, "close_ledger_of_all", "BEFORE TRUNCATE", "oblivion.close_ledger")


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
    "balance_audit",
    metadata,
    BalanceAuditColumns,
    """\
SELECT
  coalesce(a.user_id, l.user_id) AS user_id,
  coalesce(a.tokens_remaining, 0) AS balance,
  coalesce(l.tokens, 0) AS ledger,
  coalesce(a.tokens_remaining, 0) - coalesce(l.tokens, 0) AS drift,
  coalesce(l.gaps, 0) AS gaps
FROM public.user_accounts AS a
FULL JOIN (
  SELECT user_id, sum(tokens) AS tokens, count(*) FILTER (WHERE balance <> coalesce(before, 0) + tokens) AS gaps
  FROM (
    SELECT user_id, tokens, balance, lag(balance) OVER (PARTITION BY user_id ORDER BY id) AS before
    FROM public.token_ledger
  ) AS entries
  GROUP BY user_id
) AS l ON l.user_id = a.user_id""",
    reads=[user_accounts, token_ledger],
    comment="Each account's balance beside the sum of its ledger; a row with drift or gaps is wrong.",
    schema=PRIVATE_SCHEMA,
)
grants(balance_audit, "balance_audit", f"TABLE {qualified(balance_audit)}", {})

function(
    token_ledger,
    "oblivion.trim_ledger",
    "timestamptz",
    comment="The owner's retention: makes one row of an account's rows before that moment; returns how many went.",
)
