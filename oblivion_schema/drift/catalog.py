"""Read the objects of a database, each as PostgreSQL itself prints it: nothing is parsed here.

A catalog holds the objects of the schemas public and oblivion. Each state of an object (a grant, a comment, a column's
default) is an object of its own. Two objects on servers of the same version are therefore equal exactly if their
definitions are equal texts.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Text, bindparam, cast, func, select, text, true

from oblivion_schema.declare.ddl import reference_tables
from oblivion_schema.declare.privileges import API_ROLES
from oblivion_schema.declare.sql import text_literal, unquoted
from oblivion_schema.tables.base import PRIVATE_SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Connection, MetaData, Table, TextClause

SCHEMAS: Final = ("public", PRIVATE_SCHEMA)
PUBLICATIONS: Final = ("supabase_realtime",)
"""The publications whose tables the metadata may declare; other publications are not compared."""

KINDS: Final = (
    "schema",
    "table",
    "storage parameter",
    "setting",
    "column",
    "type",
    "nullability",
    "default",
    "identity",
    "primary key",
    "unique constraint",
    "foreign key",
    "check constraint",
    "exclusion constraint",
    "index",
    "function",
    "trigger",
    "trigger state",
    "row level security",
    "policy",
    "view",
    "owner",
    "grant",
    "publication",
    "comment",
    "reference row",
)
"""Every kind of object that is compared, in the order in which a revision creates the objects of one table."""

COLUMN_STATES: Final = frozenset({"type", "nullability", "default", "identity"})
CONSTRAINTS: Final = frozenset(
    {"primary key", "unique constraint", "foreign key", "check constraint", "exclusion constraint"}
)
STATES: Final = COLUMN_STATES | {
    "storage parameter", "setting", "trigger state", "row level security", "owner", "grant", "publication", "comment",
}  # fmt: skip
"""Kinds that have no name of their own: a state of our object is ours, never somebody else's."""
NOT_VALID: Final = (" NOT VALID", " NOT ENFORCED")
"""The end of the definition of a constraint that rows may break."""
INVALID: Final = " -- invalid"
"""The end of the definition of an index that PostgreSQL marked invalid and does not use."""
OWNER_OF_ALL: Final = f"the owner of schema {PRIVATE_SCHEMA}"
"""The definition of an owner that owns the private schema too; other owners are given by name."""
STORED: Final = " STORED"
"""The end of the definition of a generated column whose values are in the table."""
GRANTED_BY: Final = "GRANTED BY "
"""The start of the list of roles that passed a grant on, at the end of its definition."""
UNSUPPORTED: Final = "other"
"""The kind of objects that are read but not compared, such as a materialized view."""
DEPENDENT: Final = "dependent"
"""The kind of objects of which only is read what they need; `shape` is their system catalog, such as `pg_policy`."""

Key = tuple[str, str]


@dataclass(frozen=True)
class Object:
    """An object, or a state of one, as PostgreSQL prints it.

    - `own_name`, `on_name`: its name, and the name of its table or of the object that it is a state of; both quoted as
      SQL needs it.
    - `definition`: the text that is compared.
    - `shape`: CREATE OR REPLACE works if the new shape is equal to the old one, or continues it. For other kinds see
      the properties `role`, `sequence`, `condition` and `undone_by`.
    - `address`: the number of the object in PostgreSQL's catalogs, such as `relation 16385`; empty for a state.
    - `part_of`: the address of the object that it is created and dropped with, such as its table.
    - `needs`: addresses of the objects that must exist before it.
    - `sort`: its place in the order of creation.
    - `row`: column names and values of a reference row, those of the primary key first.
    - `source`: the statement of a function, a view or a comment on one, as it was written; empty if unknown.
    """

    kind: str
    own_name: str
    on_name: str
    definition: str
    shape: str
    address: str
    part_of: str
    sort: int
    needs: frozenset[str]
    row: tuple[tuple[str, str], ...] = ()
    source: str = ""

    @property
    def name(self) -> str:
        """The name by which messages tell it from others of its kind."""
        own, on = self.own_name, self.on_name
        if self.kind == "column" or self.kind in COLUMN_STATES:
            return f"{on}.{own}"
        special = {
            "grant": f"{own} on {_lower_first_word(on)} to {self.role}",
            "comment": f"on {_lower_first_word(own)}",
            "owner": f"of {_lower_first_word(own)}",
            "publication": f"{own} of {on}",
            "row level security": f"on {on}" if own == "ENABLE" else f"on {on}, forced",
        }
        return special.get(self.kind) or (f"{own} on {on}" if on else own)

    def is_column_of(self, relation: str) -> bool:
        """Whether it is a column of the table `relation`, a name quoted as SQL needs it."""
        return self.kind == "column" and self.on_name == relation

    @property
    def role(self) -> str:
        """The role that a grant is given to."""
        return self.shape

    @property
    def privilege(self) -> str:
        """The privilege of a grant, without the column that it is for."""
        return self.own_name.partition(" ")[0]

    @property
    def option(self) -> str:
        """`WITH GRANT OPTION`, if a grant has it."""
        return self.definition.partition(GRANTED_BY)[0].strip()

    @property
    def grantors(self) -> list[str]:
        """The roles that gave a grant by their grant option; the owner is not among them."""
        return [role for role in self.definition.partition(GRANTED_BY)[2].split(", ") if role]

    @property
    def sequence(self) -> str:
        """The sequence of an identity column."""
        return self.shape

    @property
    def condition(self) -> str:
        """The condition that selects a reference row."""
        return self.shape

    @property
    def undone_by(self) -> str:
        """The clause of ALTER TABLE that resets a setting."""
        return self.shape

    @property
    def is_valid(self) -> bool:
        """False for a constraint that is NOT VALID or NOT ENFORCED, and for an index that PostgreSQL marked invalid."""
        return not self.definition.endswith((*NOT_VALID, INVALID))

    @property
    def key(self) -> Key:
        """Kind and name, which identify it in two catalogs."""
        return self.kind, self.name

    def __str__(self) -> str:
        return self.own_name if self.kind in {UNSUPPORTED, DEPENDENT} else f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Catalog:
    """The objects of a database.

    - `unsupported`: those of kinds that are not compared.
    - `dependents`: objects of any kind and schema that are not in `objects`, and need one that is.
    """

    objects: Mapping[Key, Object]
    unsupported: tuple[Object, ...] = ()
    dependents: tuple[Object, ...] = ()

    def __contains__(self, key: Key) -> bool:
        return key in self.objects

    def __getitem__(self, key: Key) -> Object:
        return self.objects[key]

    def without_grants_to(self, roles: Sequence[str]) -> Catalog:
        """The catalog without grants to `roles`."""
        kept = {key: item for key, item in self.objects.items() if item.kind != "grant" or item.role not in roles}
        return replace(self, objects=kept)

    def without_publications(self, names: Iterable[str]) -> Catalog:
        """The catalog without the tables of these publications."""
        unwanted = set(names)
        kept = {
            key: item
            for key, item in self.objects.items()
            if item.kind != "publication" or unquoted(item.own_name) not in unwanted
        }
        return replace(self, objects=kept)

    def published_as(self, made: Catalog) -> Catalog:
        """The catalog, its tables in the publications that those of `made` are in."""
        members = {}
        for key, item in made.objects.items():
            table = self.objects.get(("table", item.on_name))
            if item.kind == "publication" and table is not None:
                members[key] = replace(item, part_of=table.address, needs=frozenset({table.address}))
        return replace(self, objects={**self.objects, **members})

    def grants(self) -> dict[str, dict[str, list[str]]]:
        """The privileges of each role on each object: target of GRANT, then role, then privileges with their option."""
        found: dict[str, dict[str, list[str]]] = {}
        for item in self.objects.values():
            if item.kind == "grant":
                found.setdefault(item.on_name, {}).setdefault(item.role, []).append(
                    f"{item.own_name} {item.option}".strip()
                )
        return found

    def columns(self) -> dict[str, list[Object]]:
        """The columns of each table, in order."""
        found: dict[str, list[Object]] = {}
        for item in sorted(self.objects.values(), key=lambda item: item.sort):
            if item.kind == "column":
                found.setdefault(item.on_name, []).append(item)
        return found


def read(connection: Connection, metadata: MetaData | None = None, roles: Sequence[str] = API_ROLES) -> Catalog:
    """Read all objects; of grants those to `roles` and PUBLIC, of rows those of `metadata`'s tables of reference rows.

    Changes nothing. Locks nothing except the tables that it reads, against being dropped.
    """
    with _settings_for_printing(connection):
        return _read(connection, metadata, roles)


def read_grants(connection: Connection, roles: Sequence[str] = API_ROLES) -> Catalog:
    """Read only the grants to `roles` and PUBLIC. Changes nothing."""
    with _settings_for_printing(connection):
        return _read(connection, None, roles, only="grant")


# The settings that PostgreSQL's printed definitions depend on; and JIT, which would compile a query of this size for
# seconds, to run it for a tenth of one.
_SETTINGS: Final = {
    "jit": "off",
    "standard_conforming_strings": "on",
    "search_path": "",
    "quote_all_identifiers": "off",
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
}


@contextmanager
def _settings_for_printing(connection: Connection) -> Iterator[None]:
    with connection.begin_nested() as savepoint:  # its rollback also undoes the settings
        connection.execute(select(*(func.set_config(name, value, true()) for name, value in _SETTINGS.items())))
        yield
        savepoint.rollback()


def _read(connection: Connection, metadata: MetaData | None, roles: Sequence[str], only: str = "") -> Catalog:
    rows = connection.execute(
        _query(only),
        {"schemas": list(SCHEMAS), "private": PRIVATE_SCHEMA, "roles": list(roles), "publications": list(PUBLICATIONS)},
    )
    objects: dict[Key, Object] = {}
    others: dict[str, list[Object]] = {UNSUPPORTED: [], DEPENDENT: []}
    for row in rows:
        item = Object(
            kind=row.kind,
            own_name=row.own_name,
            on_name=row.on_name or "",
            definition=row.definition,
            shape=row.shape or "",
            address=row.address or "",
            part_of=row.part_of or "",
            sort=row.sort,
            needs=frozenset(row.needs or ()),
        )
        if item.kind in others:
            others[item.kind].append(item)
        else:
            objects[item.key] = item
    for item in _reference_rows(connection, metadata, objects) if metadata is not None else ():
        objects[item.key] = item
    return Catalog(objects, tuple(others[UNSUPPORTED]), tuple(others[DEPENDENT]))


@cache
def _query(only: str = "") -> TextClause:
    """The query for all objects with what they need, or without that for those of one kind."""
    sql = Path(__file__).with_name("catalog.sql").read_text(encoding="utf-8")
    if only:
        found, _, _ = sql.partition(",\n-- How an address names")
        sql = f"{found}\nSELECT *, NULL AS needs FROM found WHERE kind = '{only}'"
    return text(sql).bindparams(*(bindparam(name) for name in ("schemas", "private", "roles", "publications")))


def _reference_rows(connection: Connection, metadata: MetaData, objects: Mapping[Key, Object]) -> Iterator[Object]:
    for table, names in reference_tables(metadata).items():
        quote = func.quote_ident
        name = select(func.concat(quote(table.schema or "public"), ".", quote(table.name)))
        relation = str(connection.scalar(name))
        columns = {unquoted(item.own_name): item.own_name for item in objects.values() if item.is_column_of(relation)}
        key = [column.name for column in table.primary_key]
        # Columns that the database lacks are left out: the missing column is reported, not each row as different.
        named = [*key, *(name for name in names if name not in key and name in columns)]
        if columns.keys() >= set(key):
            yield from _rows_of(connection, table, {name: columns[name] for name in named}, objects["table", relation])


def _rows_of(connection: Connection, table: Table[Any], names: Mapping[str, str], relation: Object) -> Iterator[Object]:
    """The rows of `table`; `names` has its columns and their quoted names, those of the primary key first."""
    connection.execute(select(func.set_config("search_path", table.schema or "public", true())))
    key = list(table.primary_key)
    rows = select(*(cast(table.c[name], Text) for name in names)).order_by(*key)
    for position, values in enumerate(connection.execute(rows)):
        row = tuple(zip(names.values(), map(_value, values), strict=True))
        yield Object(
            "reference row",
            own_name=", ".join(str(value) for value in values[: len(key)]),
            on_name=relation.own_name,
            definition=", ".join(f"{name} = {value}" for name, value in row[len(key) :]),
            shape=" AND ".join(f"{name} = {value}" for name, value in row[: len(key)]),
            address="",
            part_of=relation.address,
            sort=position,
            needs=frozenset({relation.address}),
            row=row,
        )


def _value(value: str | None) -> str:
    """A value as SQL writes it."""
    if value is None:
        return "NULL"
    if value in {"true", "false"} or value.removeprefix("-").isdecimal():
        return value
    return text_literal(value)


def _lower_first_word(name: str) -> str:
    first, _, rest = name.partition(" ")
    return f"{first.lower()} {rest}"
