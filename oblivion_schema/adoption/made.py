"""What revisions make under names that people may have used: such an object is in the way, or is replaced."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from oblivion_schema.adoption.snapshot import rows
from oblivion_schema.declare.sql import commented, statements_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from sqlalchemy import Connection

    from oblivion_schema.adoption.report import Inspection
    from oblivion_schema.operations import Request


class _Made(NamedTuple):
    """An object in schema public that an .sql file makes; a function's name is its signature."""

    kind: str
    name: str
    table: str = ""
    replaces: bool = False


def inspect_names(
    connection: Connection, found: Inspection, pending: Sequence[Request], applied: Sequence[Request]
) -> None:
    """Tell what has the name of something that the pending revisions make.

    What the `applied` ones made is ours, and replaced without a word.
    """
    ours = set(_made(applied))
    made = [each for each in _made(pending) if not (each.replaces and each in ours)]
    columns = {
        "kinds": [each.kind for each in made],
        "names": [each.name for each in made],
        "tables": [each.table for each in made],
    }
    for taken in rows(connection, "names_taken", **columns):
        kind = taken.kind.removeprefix("trigger ")
        name = f"{taken.name} on {taken.on_table}" if taken.on_table else taken.name
        if not made[taken.place - 1].replaces:
            found.stop(kind, name, f"{kind} {name} is there already, and ours has that name: rename it")
        elif taken.wrong:
            found.stop(kind, name, f"{kind} {name} {taken.wrong}")
        else:
            found.do("replace function", name)


def _made(requests: Iterable[Request]) -> Iterator[_Made]:
    for request in requests:
        if request.function == "run_file":
            yield from _made_by(request.arguments["file"])


def _made_by(file: Path) -> Iterator[_Made]:
    kind, replaces = "function", False
    for statement in statements_of(file):
        sql = "\n".join(line for line in statement.splitlines() if not line.startswith("--"))
        match sql.split():
            case ["CREATE", "TABLE", name, *_] if name.startswith("public."):
                yield _Made("table", name)
            case ["CREATE", "TRIGGER", name, *rest]:
                yield _Made("trigger", name, rest[rest.index("ON") + 1])
            case ["CREATE", "OR", "REPLACE", "FUNCTION", *rest]:
                kind, replaces = "trigger function" if "trigger" in rest else "function", True
            case ["COMMENT", "ON", "FUNCTION", name, *_] if name.startswith("public."):
                yield _Made(kind, commented(sql), replaces=replaces)
