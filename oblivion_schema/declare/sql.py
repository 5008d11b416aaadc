"""Split, quote and compose SQL text."""

from __future__ import annotations

import re
from itertools import chain, count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


# Quotes, dollar quotes and comments: a semicolon inside them does not end a statement.
_COMMENT = r"--[^\n]*|/\*.*?\*/"
_WHOLE = rf"""'(?:[^']|'')*'|"[^"]*"|\$(\w*)\$.*?\$\1\$|{_COMMENT}"""
_STATEMENT = re.compile(rf"(?:{_WHOLE}|;(?![ \t]*\n[ \t]*\n|\nCOMMENT ON |\s*\Z)|[^;])+", re.DOTALL)
_NOTHING = re.compile(rf"(?:\s|{_COMMENT})*", re.DOTALL)


def statements(script: str) -> list[str]:
    """The statements of a script, without their semicolons.

    A semicolon ends a statement only before an empty line, before COMMENT ON at the start of a line, and at the end of
    the script: the lines of a BEGIN ATOMIC body end with semicolons too.
    """
    found = (match[0].strip() for match in _STATEMENT.finditer(script))
    return [statement for statement in found if not _NOTHING.fullmatch(statement)]


def statements_of(file: Path) -> list[str]:
    """The statements of an .sql file."""
    return statements(file.read_text(encoding="utf-8"))


def commented(comment: str) -> str:
    """The object that a COMMENT ON names, such as public.tick_call(uuid)."""
    return comment.removeprefix("COMMENT ON ").partition(" IS")[0].partition(" ")[2]


def quoted(*names: str) -> str:
    """`names` quoted for SQL, and joined by points: `public.calls`, `"odd name"."calls"`.

    A qualified name of plain names gets no quotes, because no word is reserved after a point.
    """
    if len(names) > 1 and all(re.fullmatch("[a-z_][a-z0-9_]*", name) for name in names):
        return ".".join(names)
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def unquoted(name: str) -> str:
    """`name` without the quotes that SQL needs around it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def text_literal(value: str) -> str:
    """`value` as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def block(lines: Sequence[str], variables: Sequence[str] = ()) -> str:
    """A DO statement with `lines` of PL/pgSQL, and the declarations in `variables`."""
    declared = ["DECLARE", *variables] if variables else []
    body = "\n".join(["", *declared, "BEGIN", *lines, "END", ""])
    return f"DO {dollar_quoted(body)}"


def dollar_quoted(value: str, name: str = "") -> str:
    """`value` in dollar quotes, which need no escapes.

    `name` stands between the dollars; with a number if `value` contains the same tag.
    """
    tag = next(
        tag for tag in chain([f"${name}$"], (f"${name or 'do'}{number}$" for number in count())) if tag not in value
    )
    return f"{tag}{value}{tag}"


def indented(sql: str, blanks: int) -> list[str]:
    """The lines of `sql`, each indented by `blanks`."""
    return [f"{' ' * blanks}{line}" for line in sql.splitlines()]


def add_to_publication(publication: str, table: str, part: str = "") -> list[str]:
    """PL/pgSQL lines that add `table` to a publication, if it exists, this role owns it, and the table is not in it.

    `part`: the columns and rows to publish, such as ` (id) WHERE (...)`; all by default.
    """
    return _if_published(publication, table, "NOT EXISTS", f"ALTER PUBLICATION {publication} ADD TABLE {table}{part};")


def drop_from_publication(publication: str, table: str) -> list[str]:
    """PL/pgSQL lines that remove `table` from a publication, if it exists, this role owns it, and has the table."""
    return _if_published(publication, table, "EXISTS", f"ALTER PUBLICATION {publication} DROP TABLE {table};")


def _if_published(publication: str, table: str, exists: str, statement: str) -> list[str]:
    name, relation = text_literal(unquoted(publication)), text_literal(table)
    return [
        "  IF EXISTS (",
        "    SELECT FROM pg_catalog.pg_publication AS p",
        f"    WHERE pubname = {name} AND NOT puballtables AND pg_has_role(pubowner, 'USAGE')",
        "      AND NOT coalesce((to_jsonb(p) ->> 'puballsequences')::boolean, false)",
        f"      AND {exists} (",
        f"        SELECT FROM pg_catalog.pg_publication_rel WHERE prpubid = p.oid AND prrelid = {relation}::regclass",
        "      )",
        "  ) THEN",
        f"    {statement}",
        "  END IF;",
    ]
