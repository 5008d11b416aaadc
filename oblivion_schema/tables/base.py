"""The metadata that every table and view joins, and the column types that they share.

A table's columns are a TypedColumns class: an annotation types the column for type checkers, and makes it NOT NULL
unless it admits None.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import DateTime, MetaData

from oblivion_schema.declare.ddl import declare, grants
from oblivion_schema.declare.privileges import CREATE_API_ROLES, use_schema_public
from oblivion_schema.declare.sql import block

PRIVATE_SCHEMA: Final = "oblivion"
"""What clients never see: PostgREST does not expose it. Alembic's version table stands there, too."""

metadata: Final = MetaData(
    # PostgreSQL's own suffixes, so that a name given by hand, by the server and by us is the same one.
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)
"""Every table and view of the package; `metadata.create_all(engine)` builds the whole database."""

declare(metadata, "role", "API roles", CREATE_API_ROLES)
declare(metadata, "schema", "public", block(use_schema_public()))
declare(metadata, "schema", PRIVATE_SCHEMA, f"CREATE SCHEMA IF NOT EXISTS {PRIVATE_SCHEMA}")
declare(
    metadata,
    "comment",
    PRIVATE_SCHEMA,
    f"COMMENT ON SCHEMA {PRIVATE_SCHEMA} IS 'What clients never see: the version table, and helpers of the schema.'",
)

grants(metadata, PRIVATE_SCHEMA, f"SCHEMA {PRIVATE_SCHEMA}", {})

Timestamp: Final = DateTime(timezone=True)
"""timestamptz: an instant. Days are UTC days, by the view or query that cuts them."""
