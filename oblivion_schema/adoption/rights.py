"""What may keep a role from upgrading, and whose rights an upgrade changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Row

    from oblivion_schema.adoption.report import Inspection
    from oblivion_schema.adoption.snapshot import Snapshot


def inspect_rights(found: Inspection, facts: Row[Any]) -> None:
    """Tell what the role may not do."""
    if not facts.has_schema and not facts.may_create_schema:
        found.stop(
            "role", "database", "this role may not create schemas: let the database's owner GRANT CREATE ON DATABASE"
        )
    if facts.has_schema and not facts.owns_schema:
        found.stop("role", "schema", f"schema {PRIVATE_SCHEMA} belongs to {facts.schema_owner}, who has to run this")
    if not facts.may_create_in_public:
        found.stop("role", "public", "this role may not create objects in schema public: let its owner GRANT CREATE")
    if facts.is_read_only:
        found.stop("role", "read-only", "the server or this role is read-only: connect to the primary server")
    missing = [role for role in API_ROLES if role not in facts.api_roles]
    if missing and not facts.may_create_roles:
        found.warn(
            "roles",
            "roles",
            f"this role may not create the missing roles {', '.join(missing)}: the upgrade grants them nothing",
        )


def inspect_grants(there: Snapshot, found: Inspection, names: Collection[str]) -> None:
    """Tell what becomes of the grants on the tables and views of these names."""
    rows = [row for name, row in there.relations.items() if name in names]
    if rows:
        found.do("grants", "API roles", f"set the grants of {', '.join(API_ROLES)} on these tables and views")
    for row in rows:
        if row.given_to_public:
            privileges = ", ".join(row.given_to_public)
            found.warn(
                "grant", row.name, f"PUBLIC loses {privileges} on public.{row.name}: GRANT it to the roles that need it"
            )
