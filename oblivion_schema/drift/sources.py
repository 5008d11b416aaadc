"""Functions and views as somebody wrote them, which a revision freezes rather than PostgreSQL's print.

A statement is looked up by the name of what it makes, where only one object has that name.
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

# Comments may stand before it.
_STATEMENT: Final = re.compile(
    r"(?:--[^\n]*\n)*(?:CREATE (?:OR REPLACE )?|(?P<comment>COMMENT ON ))(?:FUNCTION|PROCEDURE|VIEW) (?P<name>[\w.]+)"
)
_CREATE: Final = re.compile(r"^CREATE (?:OR REPLACE )?(?=(?:FUNCTION|PROCEDURE|VIEW) )", re.MULTILINE)
_COMMENTED: Final = re.compile(r"(?:FUNCTION|PROCEDURE|VIEW) ([^(]+)")


@dataclass(frozen=True)
class Sources:
    """Statements as they were written, by the keys of what they make."""

    statements: Mapping[Key, str]

    def put_on(self, item: Object | None) -> Object | None:
        """The object with the statement that made it, where that is known."""
        return replace(item, source=self.statements.get(item.key, "")) if item else None

    def agreed(self, one: Catalog, other: Catalog) -> Sources:
        """Those of what is the same in both catalogs."""
        same = {key for key, item in one.objects.items() if key in other and other[key].definition == item.definition}
        return Sources({key: sql for key, sql in self.statements.items() if key in same})


def sources_of(catalog: Catalog, statements: Iterable[str]) -> Sources:
    """Which of the statements made which function or view of the catalog, or comment on one: the last of its name."""
    last: dict[tuple[bool, str], str] = {}
    for sql in statements:
        if made := _STATEMENT.match(sql):
            last[made["comment"] is not None, made["name"]] = sql
    named = {key: name for key, item in catalog.objects.items() if (name := _name(item))[1]}
    count = Counter(named.values())
    return Sources({key: last[name] for key, name in named.items() if name in last and count[name] == 1})


def declared_sources(metadata: MetaData, catalog: Catalog) -> Sources:
    """The statements of the metadata, which `catalog` was built by."""
    items = [*declared(metadata), *(item for table in metadata.tables.values() for item in declared(table))]
    return sources_of(catalog, [item.create for item in items])


def as_new(source: str) -> str:
    """The statement where there is nothing of that name."""
    return _CREATE.sub("CREATE ", source, count=1)


def as_replacement(source: str) -> str:
    """The statement where there may be something of that name."""
    return _CREATE.sub("CREATE OR REPLACE ", source, count=1)


def _name(item: Object) -> tuple[bool, str]:
    """Whether it is a comment, and the name of the function or view; none of another object."""
    if item.kind in {"function", "view"}:
        return False, item.own_name.partition("(")[0]
    if item.kind == "comment" and (commented := _COMMENTED.match(item.own_name)):
        return True, commented[1]
    return False, ""
