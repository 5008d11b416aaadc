"""What the metadata makes, or alters, that no catalog has: objects of any kind, in any schema.

PostgreSQL's own catalogs are looked through, whichever there are: a kind that a new version adds is found as well.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

from oblivion_schema.drift.catalog import SCHEMAS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from oblivion_schema.drift.catalog import Catalog

_BEYOND: Final = Path(__file__).with_suffix(".sql")


class Row(NamedTuple):
    """A row of a system catalog, by its object and its place; one that is altered gets another place."""

    catalog: int
    object_class: int
    object_id: int
    place: str


# Roles are declared, and made where they are missing; the other shared catalogs belong to the whole server. The values
# of an enum are no objects.
_CATALOGS: Final = """
SELECT c.relname
FROM pg_class AS c
JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r' AND a.attname = 'oid' AND a.attnum > 0
  AND (NOT c.relisshared OR c.relname = 'pg_subscription') AND c.relname <> 'pg_enum'
  -- Of user mappings and subscriptions only a superuser sees all.
  AND has_table_privilege(c.oid, 'SELECT')
"""

# Whose transaction made a row is not asked of rows that are older than this one.
_MINE: Final = """
CASE WHEN age(xmin) <= 0
  THEN pg_xact_status((pg_current_xact_id()::text::numeric - age(xmin))::text::xid8) = 'in progress'
END
"""


def rows_written(connection: Connection) -> frozenset[Row]:
    """The rows of all catalogs that this transaction has written."""
    names = connection.exec_driver_sql(_CATALOGS).scalars()
    row = partial("SELECT '{0}'::regclass::oid::bigint, {1}::bigint, {2}::bigint, ctid::text FROM {0} WHERE {3}".format)
    parts = [row(name, f"'{name.removesuffix('_metadata')}'::regclass::oid", "oid", _MINE) for name in names]
    parts.append(row("pg_attribute", "'pg_class'::regclass::oid", "attrelid", f"attnum > 0 AND {_MINE}"))
    parts += [row(name, "classoid", "objoid", _MINE) for name in ("pg_description", "pg_seclabel")]
    return frozenset(Row(*found) for found in connection.exec_driver_sql(" UNION ALL ".join(parts)))


def beyond(connection: Connection, before: frozenset[Row], catalog: Catalog) -> list[str]:
    """The objects that were made or altered since `before` and are not in `catalog`, as PostgreSQL names them."""
    since = rows_written(connection) - before
    parameters = {
        "catalogs": [row.catalog for row in since],
        "classes": [row.object_class for row in since],
        "ids": [row.object_id for row in since],
        "known": [item.address for item in catalog.objects.values() if item.address],
        "schemas": list(SCHEMAS),
    }
    found: Iterable[str] = connection.scalars(
        text(_BEYOND.read_text(encoding="utf-8").replace("::", r"\:\:")), parameters
    )
    named = [item.own_name for item in catalog.unsupported]
    said = f" {' '.join(named)} "
    return [*named, *(name for name in found if f" {name.partition(' ')[2]} " not in said)]
