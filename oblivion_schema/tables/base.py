"""The metadata of all tables and views, and the column types that they share.

The columns of a table are a TypedColumns class. Type checkers read the annotation of a column; SQLAlchemy makes the
column NOT NULL unless its annotation allows None.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import DateTime, MetaData

from oblivion_schema.declare.ddl import declare, grants
from oblivion_schema.declare.privileges import CREATE_API_ROLES, use_schema_public
from oblivion_schema.declare.sql import block

PRIVATE_SCHEMA: Final = "oblivion"
"""The schema that clients never see, because PostgREST does not expose it. Alembic's version table is in it too."""

metadata: Final = MetaData(
    # PostgreSQL's own suffixes: a constraint has the same name whether PostgreSQL or this package named it.
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
    f"COMMENT ON SCHEMA {PRIVATE_SCHEMA} IS 'Hidden from clients: the version table, internal tables and functions.'",
)

grants(metadata, PRIVATE_SCHEMA, f"SCHEMA {PRIVATE_SCHEMA}", {})

Timestamp: Final = DateTime(timezone=True)
"""timestamptz: an instant. Views and queries that group by day use UTC days."""
