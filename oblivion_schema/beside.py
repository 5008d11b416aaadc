"""Live beside another Alembic environment in the same database: give these two to its `context.configure()`.

    from oblivion_schema import beside

    context.configure(..., include_name=beside.include_name, include_object=beside.include_object)

Its autogenerate and check then pass over the tables and views of this package, whether its `target_metadata` has them
too or not: the revisions of this package make them, and change them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from oblivion_schema.declare.ddl import declared
from oblivion_schema.tables.base import PRIVATE_SCHEMA, metadata

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from sqlalchemy.schema import SchemaItem

    Kind = Literal[
        "schema", "table", "column", "index", "unique_constraint", "foreign_key_constraint", "check_constraint"
    ]
    Names = MutableMapping[Literal["schema_name", "table_name", "schema_qualified_table_name"], str | None]


def include_name(name: str | None, type_: Kind, parent_names: Names) -> bool:
    """Whether Alembic shall read a schema or table of that name: not if it is ours."""
    if type_ == "schema":
        return name != PRIVATE_SCHEMA
    return type_ != "table" or not _is_ours(name, parent_names.get("schema_name"))


def include_object(
    object_: SchemaItem,
    name: str | None,
    type_: Kind,
    reflected: bool,  # noqa: FBT001 - Alembic calls it so
    compare_to: SchemaItem | None,
) -> bool:
    """Whether Alembic shall compare a table of the database or of a metadata: not if it is ours."""
    del reflected, compare_to
    return type_ != "table" or not _is_ours(name, getattr(object_, "schema", None))


def _is_ours(table: str | None, schema: str | None) -> bool:
    if schema not in {None, "public"}:
        return schema == PRIVATE_SCHEMA
    found = metadata.tables.get(table or "")
    # Each of ours declares its grants; a table that somebody adds to our metadata does not.
    return found is not None and bool(declared(found))
