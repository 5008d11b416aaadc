"""Adoption log: what upgrades found in tables made by hand, and what they did with it; no row is ever lost."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import JSON, BigInteger, Column, Identity, Named, Table, Text, TypedColumns, text

from oblivion_schema.declare.access import keep_pages_out
from oblivion_schema.declare.ddl import grants, qualified
from oblivion_schema.tables.base import PRIVATE_SCHEMA, Timestamp, metadata


class AdoptionLogColumns(TypedColumns):
    """Columns of `oblivion.adoption_log`."""

    id: Named[int] = Column(BigInteger, Identity(always=True), primary_key=True, comment="Identifier of the entry.")
    kind: Named[str] = Column(
        Text,
        comment=(
            "table: taken over; renamed, filled, row, not valid, forced: what the upgrade did; otherwise the "
            "kind of an object that is not ours."
        ),
    )
    name: Named[str] = Column(Text, comment="Name of the object.")
    why: Named[str] = Column(Text, comment="What was done, and why.")
    was: Named[dict[str, Any] | None] = Column(
        JSON, comment="The row that was moved here, or the definition of the object that is not ours."
    )
    logged_at: Named[datetime] = Column(Timestamp, server_default=text("now()"), comment="When the upgrade began.")
    __row_pos__: tuple[int, str, str, str, dict[str, Any] | None, datetime]


adoption_log: Final = Table(
    "adoption_log",
    metadata,
    AdoptionLogColumns,
    schema=PRIVATE_SCHEMA,
    comment="What upgrades found in tables that were made by hand, and what became of it.",
)
keep_pages_out(adoption_log)
grants(adoption_log, "adoption_log", f"TABLE {qualified(adoption_log)}", {})
