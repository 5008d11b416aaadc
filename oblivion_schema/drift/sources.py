"""The SQL of functions and views as it was written: a revision freezes that, not the text that PostgreSQL prints.

A statement is found by the name of the object that it creates, if only one object has that name.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from oblivion_schema.declare.ddl import declared

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import MetaData

    from oblivion_schema.drift.catalog import Catalog, Key, Object

# Comment lines may stand before CREATE.
_STATEMENT: Final = re.compile(
    r"(?:--[^\n]*\n)*(?:CREATE (?:OR REPLACE )?|(?P<comment>COMMENT ON ))(?:FUNCTION|PROCEDURE|VIEW) (?P<name>[\w.]+)"
)
_CREATE: Final = re.compile(r"^CREATE (?:OR REPLACE )?(?=(?:FUNCTION|PROCEDURE|VIEW) )", re.MULTILINE)
_COMMENTED: Final = re.compile(r"(?:FUNCTION|PROCEDURE|VIEW) ([^(]+)")


@dataclass(frozen=True)
class Sources:
    """Statements as they were written, by the key of the object that each creates."""

    statements: Mapping[Key, str]

    def put_on(self, item: Object | None) -> Object | None:
        """The object with the statement that created it, or with none if that is unknown."""
        return replace(item, source=self.statements.get(item.key, "")) if item else None

    def only(self, keys: Iterable[Key]) -> Sources:
        """The statements of these objects."""
        return Sources({key: self.statements[key] for key in keys if key in self.statements})

    def agreed(self, one: Catalog, other: Catalog) -> Sources:
        """The statements of the objects that have the same definition in both catalogs."""
        same = {key for key, item in one.objects.items() if key in other and other[key].definition == item.definition}
        return Sources({key: sql for key, sql in self.statements.items() if key in same})


def sources_of(catalog: Catalog, statements: Iterable[str]) -> Sources:
    """The statement for each function and view of `catalog`, and for each comment on one: the last with its name."""
    last: dict[tuple[bool, str], str] = {}
    for sql in statements:
        if made := _STATEMENT.match(sql):
            last[made["comment"] is not None, made["name"]] = sql
    named = {key: name for key, item in catalog.objects.items() if (name := _name(item))[1]}
    count = Counter(named.values())
    return Sources({key: last[name] for key, name in named.items() if name in last and count[name] == 1})


def declared_sources(metadata: MetaData, catalog: Catalog) -> Sources:
    """The statements that the metadata declares; `catalog` is what they built."""
    items = [*declared(metadata), *(item for table in metadata.tables.values() for item in declared(table))]
    return sources_of(catalog, [item.create for item in items])


def as_new(source: str) -> str:
    """The statement with CREATE alone, for a name that is free."""
    return _CREATE.sub("CREATE ", source, count=1)


def as_replacement(source: str) -> str:
    """The statement with CREATE OR REPLACE, for a name that may be taken."""
    return _CREATE.sub("CREATE OR REPLACE ", source, count=1)


def _name(item: Object) -> tuple[bool, str]:
    """Whether `item` is a comment, and the name of the function or view; an empty name for other kinds."""
    if item.kind in {"function", "view"}:
        return False, item.own_name.partition("(")[0]
    if item.kind == "comment" and (commented := _COMMENTED.match(item.own_name)):
        return True, commented[1]
    return False, ""
