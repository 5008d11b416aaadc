"""Backfills: what an upgrade of big tables leaves to be filled in after it, while clients go on.

An upgrade notes each of them here, and makes the triggers that note all changes from then on. Reports and the audit
compute what is missing, so they are exact at every moment. `oblivion.backfill()` writes it, and deletes the rows here
in the same transaction.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Column, Named, Table, Text, TypedColumns, text

from oblivion_schema.declare.access import EVERYBODY, READ, row_level_security
from oblivion_schema.declare.ddl import function, grants, qualified
from oblivion_schema.declare.privileges import PUBLIC
from oblivion_schema.tables.base import PRIVATE_SCHEMA, Timestamp, metadata

SQL: Final = Path(__file__).with_suffix("")


class BackfillColumns(TypedColumns):
    """Columns of `oblivion.backfills`."""

    name: Named[str] = Column(
        Text,
        primary_key=True,
        comment="ledger: opening rows of token_ledger; usage, calls: the roll-ups of token_usage, of call_sessions.",
    )
    noted_at: Named[datetime] = Column(
        Timestamp, server_default=text("now()"), comment="When the upgrade began; opening rows get this time."
    )
    __row_pos__: tuple[str, datetime]


backfills: Final = Table(
    "backfills",
    metadata,
    BackfillColumns,
    schema=PRIVATE_SCHEMA,
    comment="What an upgrade left to be filled in by backfill(); empty if all is filled.",
)
# Reports ask for it, so every role that may query a report reads it; the schema is private.
row_level_security(backfills, select=EVERYBODY, insert="false", update="false", delete="false")
grants(backfills, "backfills", f"TABLE {qualified(backfills)}", {PUBLIC: READ})

function(metadata, SQL / "oblivion.backfill.sql")
