"""Token ledger: one row for each change of a balance, so that a balance is the sum of its rows.

Triggers on user_accounts write the rows, whoever changes a balance. Only the owner can change or delete a row.
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
from oblivion_schema.tables.backfills import backfills
from oblivion_schema.tables.base import Timestamp, metadata

SQL: Final = Path(__file__).with_suffix("")


class TokenLedgerColumns(TypedColumns):
    """Columns of `token_ledger`."""

    user_id: Named[str] = Column(Text, primary_key=True, comment="The account; it may have been deleted since.")
    id: Named[int] = Column(
        BigInteger,
        Identity(always=True),
        primary_key=True,
        comment="Identifier of the row; it grows with each row of an account. 0: an opening that backfill() wrote.",
    )
    created_at: Named[datetime] = Column(
        Timestamp, server_default=text("clock_timestamp()"), comment="When the balance changed."
    )
    kind: Named[str] = Column(
        Text,
        comment=(
            "opening or closing (of the account); charge, refund, top_up; direct (any other change); carried "
            "(sum of trimmed rows); correction (what the ledger lacked, by rebuild_ledger())."
        ),
    )
    tokens: Named[int] = Column(Integer, comment="Tokens added to the balance; negative if they were taken.")
    balance: Named[int] = Column(Integer, comment="Balance after the change.")
    session_id: Named[UUID | None] = Column(Uuid, comment="The call that was charged or refunded; NULL for other rows.")
    key: Named[str | None] = Column(
        Text, comment="Idempotency key of a top_up or refund, which is credited once for each key."
    )
    role: Named[str | None] = Column(
        Text, comment="anon or authenticated if a page wrote the balance by itself; NULL for other rows."
    )
    __row_pos__: tuple[str, int, datetime, str, int, int, UUID | None, str | None, str | None]


# No CHECK constraints: only the triggers, trim_ledger(), fold_charges() and rebuild_ledger() write rows.
token_ledger: Final = Table(
    "token_ledger",
    metadata,
    TokenLedgerColumns,
    comment="One row for each change of a balance: a balance is the sum of its rows.",
)
# Not an Index(): its postgresql_where would make this package import the whole PostgreSQL dialect.
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


class MissingOpeningColumns(TypedColumns):
    """Columns of `oblivion.missing_openings`."""

    user_id: Named[str] = Column(Text, comment="The account; it may have been deleted since.")
    id: Named[int] = Column(BigInteger, comment="Identifier of the row: 0, before those of all later rows.")
    created_at: Named[datetime] = Column(Timestamp, comment="When the upgrade began that made the ledger.")
    tokens: Named[int] = Column(Integer, comment="Balance of the account at that time.")
    balance: Named[int] = Column(Integer, comment="The same.")
    __row_pos__: tuple[str, int, datetime, int, int]


missing_openings: Final = view(
    SQL / "oblivion.missing_openings.sql",
    metadata,
    MissingOpeningColumns,
    reads=[user_accounts, token_ledger, backfills],
)
grants(missing_openings, "missing_openings", f"TABLE {qualified(missing_openings)}", {})


class BalanceAuditColumns(TypedColumns):
    """Columns of `oblivion.balance_audit`."""

    user_id: Named[str] = Column(Text, comment="The account.")
    balance: Named[int] = Column(Integer, comment="Balance of the account; 0 if the account was deleted.")
    ledger: Named[int] = Column(BigInteger, comment="Sum of the account's ledger rows.")
    drift: Named[int] = Column(
        BigInteger, comment="balance minus ledger; not 0 if a balance was changed past the triggers."
    )
    gaps: Named[int] = Column(
        BigInteger,
        comment=(
            "Ledger rows whose balance is not the previous balance plus tokens; not 0 if rows are missing, until a"
            " correction comes after all of them."
        ),
    )
    __row_pos__: tuple[str, int, int, int, int]


balance_audit: Final = view(
    SQL / "oblivion.balance_audit.sql",
    metadata,
    BalanceAuditColumns,
    reads=[user_accounts, token_ledger, missing_openings],
)
grants(balance_audit, "balance_audit", f"TABLE {qualified(balance_audit)}", {})

function(token_ledger, SQL / "oblivion.wrong_ledgers.sql")
function(token_ledger, SQL / "oblivion.trim_ledger.sql")
function(token_ledger, SQL / "oblivion.rebuild_ledger.sql")
