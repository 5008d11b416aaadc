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
