"""Pieces of SQL text."""

from __future__ import annotations

from itertools import chain, count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def quoted(*names: str) -> str:
    """Names as SQL takes them whatever they are, each qualified by the one before it."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def unquoted(name: str) -> str:
    """The identifier that `name` is in SQL."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def text_literal(value: str) -> str:
    """`value` as a literal."""
    return "'" + value.replace("'", "''") + "'"


def block(lines: Sequence[str], variables: Sequence[str] = ()) -> str:
    """`lines` of PL/pgSQL as one statement."""
    body = "\n".join(lines)
    tag = next(tag for tag in chain(["$$"], (f"$do{number}$" for number in count())) if tag not in body)
    declared = ["DECLARE", *variables] if variables else []
    return "\n".join([f"DO {tag}", *declared, "BEGIN", body, "END", tag])


def add_to_publication(publication: str, table: str, part: str = "") -> str:
    """One statement that adds `part` of `table`, or all of it, where there is such a publication and it lacks it."""
    return _if_published(publication, table, "NOT EXISTS", f"ALTER PUBLICATION {publication} ADD TABLE {table}{part};")


def drop_from_publication(publication: str, table: str) -> str:
    """One statement that takes `table` out of a publication, where there is such a one and it has it."""
    return _if_published(publication, table, "EXISTS", f"ALTER PUBLICATION {publication} DROP TABLE {table};")


def _if_published(publication: str, table: str, exists: str, statement: str) -> str:
    member = (
        f"SELECT FROM pg_catalog.pg_publication_rel WHERE prpubid = p.oid AND prrelid = {text_literal(table)}::regclass"
    )
    return block(
        [
            "  IF EXISTS (",
            "    SELECT FROM pg_catalog.pg_publication AS p",
            f"    WHERE pubname = {text_literal(unquoted(publication))} AND NOT puballtables AND {exists} (",
            f"      {member}",
            "    )",
            "  ) THEN",
            f"    {statement}",
            "  END IF;",
        ]
    )
