"""Pieces of SQL text."""

from __future__ import annotations

import re
from itertools import chain, count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


# Quotes, dollar quotes and comments, in which a semicolon ends nothing.
_WHOLE = r"""'(?:[^']|'')*'|"[^"]*"|\$(\w*)\$.*?\$\1\$|--[^\n]*"""
_STATEMENT = re.compile(rf"(?:{_WHOLE}|;(?!\n\n|\nCOMMENT ON |\n?\Z)|[^;])+", re.DOTALL)


def statements(script: str) -> list[str]:
    """The statements of a script, without semicolons.

    A semicolon ends one before an empty line, before a COMMENT at the margin, and at the end. Elsewhere it does not:
    BEGIN ATOMIC has lines that end with it.
    """
    return [found.strip() for found in (match[0] for match in _STATEMENT.finditer(script)) if found.strip()]


def statements_of(file: Path) -> list[str]:
    """The statements of an .sql file."""
    return statements(file.read_text(encoding="utf-8"))


def quoted(*names: str) -> str:
    """Names as SQL takes them whatever they are, each qualified by the one before it.

    A qualified name is left as it is where it is plain: behind a point no word is reserved.
    """
    if len(names) > 1 and all(re.fullmatch("[a-z_][a-z0-9_]*", name) for name in names):
        return ".".join(names)
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def unquoted(name: str) -> str:
    """The identifier that `name` is in SQL."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def text_literal(value: str) -> str:
    """`value` as a literal."""
    return "'" + value.replace("'", "''") + "'"


def block(lines: Sequence[str], variables: Sequence[str] = ()) -> str:
    """`lines` of PL/pgSQL as one statement."""
    declared = ["DECLARE", *variables] if variables else []
    body = "\n".join(["", *declared, "BEGIN", *lines, "END", ""])
    return f"DO {dollar_quoted(body)}"


def dollar_quoted(value: str, name: str = "") -> str:
    """`value` as a literal that shows it as it is; `name` is what stands between the dollars, where it can be that."""
    tag = next(
        tag for tag in chain([f"${name}$"], (f"${name or 'do'}{number}$" for number in count())) if tag not in value
    )
    return f"{tag}{value}{tag}"


def indented(sql: str, blanks: int) -> list[str]:
    """The lines of `sql`, as they stand in a block."""
    return [f"{' ' * blanks}{line}" for line in sql.splitlines()]


def add_to_publication(publication: str, table: str, part: str = "") -> list[str]:
    """Lines of a block that add `part` of `table`, or all, where there is such a publication of ours that lacks it."""
    return _if_published(publication, table, "NOT EXISTS", f"ALTER PUBLICATION {publication} ADD TABLE {table}{part};")


def drop_from_publication(publication: str, table: str) -> list[str]:
    """Lines of a block that take `table` out of a publication of ours, where there is such a one and it has it."""
    return _if_published(publication, table, "EXISTS", f"ALTER PUBLICATION {publication} DROP TABLE {table};")


def _if_published(publication: str, table: str, exists: str, statement: str) -> list[str]:
    name, relation = text_literal(unquoted(publication)), text_literal(table)
    return [
        "  IF EXISTS (",
        "    SELECT FROM pg_catalog.pg_publication AS p",
        f"    WHERE pubname = {name} AND NOT puballtables AND pg_has_role(pubowner, 'USAGE') AND {exists} (",
        f"      SELECT FROM pg_catalog.pg_publication_rel WHERE prpubid = p.oid AND prrelid = {relation}::regclass",
        "    )",
        "  ) THEN",
        f"    {statement}",
        "  END IF;",
    ]
