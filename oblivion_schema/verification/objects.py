"""Whether each object that the metadata declares is there and has effect; any role may look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.declare.access import is_guarded
from oblivion_schema.declare.ddl import declared, qualified
from oblivion_schema.declare.sql import quoted, unquoted
from oblivion_schema.drift.catalog import CONSTRAINTS, Catalog, Object, read
from oblivion_schema.tables.base import metadata
from oblivion_schema.verification.check import SHOWN, Check, named, result

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Connection, MetaData, Table

_FIX: Final = "put it back with oblivion-schema check --sql"
_TAKES_NULL: Final = "takes NULL in "


def check_objects(connection: Connection) -> Iterator[Check]:
    """A line for each object that the metadata declares: whether it is there and has effect."""
    catalog = read(connection)
    found = set(_in_force(catalog))
    not_valid = {f"{item.on_name}.{item.own_name}": item for item in catalog.objects.values() if not item.is_valid}
    for check in _check_all(found):
        try:
            with connection.begin_nested():
                found_in = _with_rows(connection, check, not_valid)
        except DBAPIError:  # a role that may not read the rows
            found_in = check
        yield found_in


def _check_all(found: set[tuple[str, str]]) -> Iterator[Check]:
    relations = sorted(metadata.tables.values(), key=lambda relation: (relation.is_view, relation.fullname))
    for relation in relations:
        yield _check_relation(relation, found)
    expected = [belonging for relation in relations for belonging in _belongings(relation)]
    owners: list[Table[Any] | MetaData] = [metadata, *relations]
    functions = (item for owner in owners for item in declared(owner) if item.kind == "function")
    expected += [(item.kind, item.name.removeprefix("public.")) for item in functions]
    off = {"constraint": " or not validated", "index": " or not valid", "trigger": " or disabled"}
    for kind, name in expected:
        problem = f"is missing{off.get(kind, '')}: {_FIX}"
        yield result(f"{kind} {name}", "" if (kind, name) in found else problem)
    for relation in relations:
        if is_guarded(relation):
            guarded = ("row level security", relation.fullname) in found
            yield result(f"row level security of {relation.fullname}", "" if guarded else f"is off: {_FIX}")


def _in_force(catalog: Catalog) -> Iterator[tuple[str, str]]:
    """Each object that exists and has effect, as (kind, name); an object of a table has the name `table.object`.

    Disabled triggers, and constraints and indexes that are not valid, have no effect.
    """
    items = catalog.objects.values()
    fires = {"ENABLE", "ENABLE ALWAYS"}
    off = {item.part_of for item in items if item.kind == "trigger state" and item.definition not in fires}
    for item in items:
        if not item.is_valid or item.address in off:
            continue
        kind = "constraint" if item.kind in CONSTRAINTS else item.kind
        own, on = (unquoted(name.removeprefix("public.")) for name in (item.own_name, item.on_name))
        match kind:
            case "function":
                yield kind, own.partition("(")[0]
            case "row level security":
                yield kind, on
            case "nullability":
                yield item.definition.lower(), f"{on}.{own}"
            case "view":
                yield kind, own
                if "security_invoker = true" in item.definition.partition("AS\n")[0]:
                    yield "security invoker", own
                for column in item.shape.removesuffix(",").split(", "):
                    yield "column", f"{own}.{unquoted(column.partition(' ')[0])}"
            case "index":
                # An index has the schema of its table, so only its own name is kept.
                yield kind, f"{on}.{own.rpartition('.')[2]}"
            case _:
                yield kind, f"{on}.{own}" if on else own


def _with_rows(connection: Connection, check: Check, not_valid: Mapping[str, Object]) -> Check:
    """The check; for what takes NULL, or is NOT VALID or NOT ENFORCED, with the rows that break it."""
    kind, _, name = check.subject.partition(" ")
    if not check.failed:
        return check
    if kind == "table" and check.says.startswith(_TAKES_NULL):
        columns = check.says.removeprefix(_TAKES_NULL).partition(":")[0]
        condition = " OR ".join(f"t.{quoted(column)} IS NULL" for column in columns.split(", "))
        rows = _rows(connection, metadata.tables[name.partition(",")[0]], condition)
        return (
            result(check.subject, f"{_TAKES_NULL}{columns}, and {rows}: correct them, then {_FIX}") if rows else check
        )
    item = not_valid.get(f"public.{name}")
    if kind != "constraint" or item is None:
        return check
    table, _, constraint = name.partition(".")
    condition = connection.scalar(text(_BREAKS), {"table": f"public.{table}", "constraint": constraint})
    rows = _rows(connection, metadata.tables[table], condition)
    if item.definition.endswith("NOT ENFORCED"):
        says = f"is NOT ENFORCED, and {rows}: correct them, then" if rows else "is NOT ENFORCED:"
        return result(check.subject, f"{says} {_FIX}")
    validate = f"ALTER TABLE public.{table} VALIDATE CONSTRAINT {constraint}"
    if not rows:
        return result(check.subject, f"is NOT VALID, but no row breaks it any more: {validate}")
    return result(check.subject, f"{rows}: correct them, then {validate}")


def _rows(connection: Connection, relation: Table[Any], condition: str | None) -> str:
    """How many rows meet the condition of those that break a rule, and the first of them; empty if none does."""
    key = ", ".join(quoted(column.name) for column in relation.primary_key)
    rows = f"FROM {qualified(relation)} AS t WHERE {condition}"
    # The condition comes from PostgreSQL's catalogs, so it needs no escapes.
    count = connection.exec_driver_sql(f"SELECT count(*) {rows}", execution_options={"no_parameters": True}).scalar()
    if not count:
        return ""
    first = connection.exec_driver_sql(
        f"SELECT ({key})::text {rows} ORDER BY {key} LIMIT {SHOWN}", execution_options={"no_parameters": True}
    ).scalars()
    names = ", ".join(column.name for column in relation.primary_key)
    return f"{count} old rows break it ({names} {named(map(str, first), count)})"


_BREAKS: Final = """
SELECT CASE contype
  WHEN 'c' THEN format('NOT (%s)', pg_get_expr(conbin, conrelid))
  ELSE (
    SELECT format(
      't.%1$I IS NOT NULL AND NOT EXISTS (SELECT FROM %2$s AS other WHERE other.%3$I = t.%1$I)',
      own.attname, confrelid::regclass, other.attname
    )
    FROM pg_attribute AS own, pg_attribute AS other
    WHERE own.attrelid = conrelid AND own.attnum = conkey[1]
      AND other.attrelid = confrelid AND other.attnum = confkey[1]
  )
END
FROM pg_constraint
WHERE conrelid = CAST(:table AS regclass) AND conname = :constraint
"""


def _belongings(relation: Table[Any]) -> Iterator[tuple[str, str]]:
    """The constraints, indexes, policies and triggers that the metadata declares on a table, as (kind, name)."""
    on = relation.fullname
    if not relation.is_view:
        # A table without a primary key has one without columns in SQLAlchemy.
        there = (c for c in relation.constraints if c is not relation.primary_key or len(relation.primary_key))
        yield from (("constraint", f"{on}.{constraint.name}") for constraint in there)
    yield from (("index", f"{on}.{index.name}") for index in relation.indexes)
    for item in declared(relation):
        if item.kind in {"index", "policy", "trigger"}:
            yield item.kind, f"{on}.{item.name.rpartition('.')[2]}"


def _check_relation(relation: Table[Any], found: set[tuple[str, str]]) -> Check:
    kind = "view" if relation.is_view else "table"
    subject = f"{kind} {relation.fullname}, {len(relation.columns)} columns"
    if (kind, relation.fullname) not in found:
        return result(subject, f"is missing: {_FIX}")
    missing = [c.name for c in relation.columns if ("column", f"{relation.fullname}.{c.name}") not in found]
    if missing:
        return result(subject, f"lacks {', '.join(missing)}: {_FIX}")
    if not relation.is_view:
        nullable = [
            c.name
            for c in relation.columns
            if not c.nullable and ("not null", f"{relation.fullname}.{c.name}") not in found
        ]
        return result(subject, f"{_TAKES_NULL}{', '.join(nullable)}: {_FIX}" if nullable else "")
    if ("security invoker", relation.fullname) not in found:
        return result(subject, f"reads with its owner's rights, past row level security: {_FIX}")
    return Check(subject)
