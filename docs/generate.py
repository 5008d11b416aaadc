"""Write what the metadata and the revisions know: the pictures, the reference, and which revisions consoles name.

    .venv/bin/python docs/generate.py [--check]

A part stands between two comments, which say so; the rest of these pages is written by hand. In consoles it renews what
names all revisions or the newest one. No database is needed.
"""

from __future__ import annotations

import argparse
import re
import sys
from difflib import unified_diff
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import picture
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Identity, PrimaryKeyConstraint, Table, UniqueConstraint
from sqlalchemy.schema import AddConstraint

from oblivion_schema import metadata
from oblivion_schema.declare.access import IS_NOT_THE_ENGINE
from oblivion_schema.declare.ddl import declared, granted
from oblivion_schema.declare.privileges import API_ROLES, PUBLIC
from oblivion_schema.deploy import upgrade as migrate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from sqlalchemy import Column, Constraint

    from oblivion_schema.declare.ddl import Declared
    from oblivion_schema.declare.privileges import GrantMode, Grants

PROJECT: Final = Path(__file__).parent.parent
COMMAND: Final = ".venv/bin/python docs/generate.py"

LEGEND: Final = """\
A solid line is a foreign key. A dashed line is a column that names a row without a foreign key: that row may be gone.
Crow's feet are many rows, a circle is none, a bar is one.
"""
VIEWS_LEGEND: Final = (
    "The boxes without columns are views; each *reads* the tables at the other end of its dashed lines.\n"
)
FUNCTIONS: Final = """\
The owner may execute all of them, in both access modes. The API roles are `anon`, `authenticated` and `service_role`;
they cannot name a function of schema `oblivion`, and reach it through the one of schema `public`. The functions of
triggers stand below their tables. [billing.md](billing.md) has the statuses and errors of those that bill.
"""
_RUNNING: Final = "INFO  [alembic.runtime.migration] Running upgrade "


class Function(NamedTuple):
    """A function of the metadata. `arguments` are those that a caller gives; `comment` is its COMMENT."""

    name: str
    arguments: str
    comment: str
    callers: str

    @property
    def purpose(self) -> str:
        """The first sentence of its COMMENT, of a trigger without the word that says so."""
        sentence = re.split(r"(?<=\.) ", self.comment)[0].removeprefix("Trigger: ")
        return sentence[0].upper() + sentence[1:]


class Trigger(NamedTuple):
    """A trigger. They sort as they fire: BEFORE, then AFTER, and those of one moment by name."""

    is_after: bool
    name: str
    fires: str
    function: str


def main() -> int:
    """Write the generated parts, or, with --check, only compare them; the exit status."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true", help="write nothing; status 1 where a part is stale")
    check = arguments.parse_args().check
    stale = False
    for page, parts in _pages().items():
        path = PROJECT / page
        there = wanted = path.read_text(encoding="utf-8")
        for name, text in parts.items():
            wanted = _replaced(wanted, name, text, page)
        wanted = _with_revisions(wanted)
        if wanted == there:
            continue
        stale = True
        if check:
            changes = unified_diff(there.splitlines(), wanted.splitlines(), page, "as it should be", lineterm="", n=0)
            print(f"{page} is not what metadata and revisions say. Mend it: {COMMAND}", *islice(changes, 20), sep="\n")
        else:
            path.write_text(wanted, encoding="utf-8")
            print(f"{page} written.")
    return int(stale and check)


def _pages() -> Mapping[str, Mapping[str, str]]:
    """The generated parts of each page."""
    return {
        "README.md": {"picture": _mermaid(picture.diagram(picture.public_schema())) + "\n" + VIEWS_LEGEND + LEGEND},
        "docs/schema.md": {"picture": _related(), "reference": _reference()},
        "CONTRIBUTING.md": {},
        "docs/adoption.md": {},
        "docs/drift.md": {},
        "docs/verify.md": {},
    }


def _with_revisions(page: str) -> str:
    """`page` with the revisions of today where a console names all of them, or the newest one."""
    scripts = list(ScriptDirectory.from_config(migrate.config()).walk_revisions())[::-1]
    head = scripts[-1].revision
    ran = "".join(f"{_RUNNING}{script.down_revision or ''} -> {script.revision}, {script.doc}\n" for script in scripts)
    pending = ", ".join(f"{script.revision} ({script.doc.rstrip('.')})" for script in scripts)
    for pattern, text in (
        (rf"({re.escape(_RUNNING)} -> .*\n)({re.escape(_RUNNING)}.*\n)*", ran),
        (r"(?<=^Upgrades pending: )001 \(.*(?=; one transaction)", pending),
        (r"(?<=^ok    revision )\d+$", head),
        (r'(?<=^  "revision": ")\d+(?=",$)', head),
        (r"(?<=`alembic downgrade )\d+(?=:base --sql`)", head),
    ):
        page = re.sub(pattern, text.replace("\\", r"\\"), page, flags=re.MULTILINE)
    # The walk that writes the next revision.
    if walked := re.search(r"^Revision (\d+), after (\d+)\.$", page, flags=re.MULTILINE):
        numbers = {walked[1]: f"{int(head) + 1:03}", walked[2]: head}
        page = re.sub(rf"(?<!\d)({'|'.join(numbers)})(?!\d)", lambda found: numbers[found[0]], page)
    return page


def _replaced(page: str, name: str, text: str, file: str) -> str:
    """`page` with `text` as its part of that name."""
    start, end = f"<!-- {name}: written by {COMMAND} -->\n", f"<!-- end of {name} -->\n"
    before, found, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{file} has no place for {name!r}: give it these two lines.\n{start}{end}")
    return before + start + text + end + after


def _mermaid(diagram: str) -> str:
    return f"```mermaid\n{diagram}```\n"


def _related() -> str:
    related = picture.related_tables()
    others = sorted(t.fullname for t in metadata.tables.values() if not t.is_view and t not in related)
    left_out = ", ".join(map(_link, others))
    return f"{_mermaid(picture.diagram(related))}\n{LEGEND}Tables that no line would reach are left out: {left_out}.\n"


def _reference() -> str:
    relations = sorted(metadata.tables.values(), key=lambda table: (table.schema or "", table.is_view, table.name))
    functions = sorted(_functions(), key=lambda function: (not function.name.startswith("public."), function.name))
    by_name = {function.name: function for function in functions}
    groups = [
        ("Tables of schema public", [table for table in relations if not table.schema and not table.is_view]),
        ("Views of schema public", [table for table in relations if not table.schema and table.is_view]),
        ("Tables of schema oblivion", [table for table in relations if table.schema and not table.is_view]),
        ("Views of schema oblivion", [table for table in relations if table.schema and table.is_view]),
    ]
    if sum(len(members) for _, members in groups) != len(metadata.tables):
        raise SystemExit("A relation is in no group of the reference.")
    lines = [f"- {title}: {', '.join(_link(table.fullname) for table in members)}" for title, members in groups]
    lines += ["- [Functions](#functions)", ""]
    for title, members in groups:
        lines += [f"### {title}", ""]
        for relation in members:
            lines += _relation(relation, by_name)
    lines += ["### Functions", "", FUNCTIONS]
    fired = {_trigger(item).function for table in metadata.tables.values() for item in _of_kind(table, "trigger")}
    lines += _table(
        ["function", "what it does", "who may execute it"],
        [[f"`{_short(f.name)}({f.arguments})`", f.purpose, f.callers] for f in functions if f.name not in fired],
    )
    return "\n".join(lines)


def _relation(relation: Table[Any], functions: Mapping[str, Function]) -> Iterator[str]:
    """A table or view: its COMMENT and its columns, then what a view reads, or a table's constraints and triggers."""
    yield from (f"#### {relation.fullname}", "", _escaped(_comment(relation)), "")
    if relation.is_view:
        yield from (f"It reads {', '.join(_link(table.fullname) for table in picture.reads(relation))}.", "")
        rows = [[f"`{c.name}`", _type(c), c.comment or ""] for c in relation.c]
        yield from _table(["column", "type", "what it is"], rows)
        return
    yield from _table(
        ["column", "type", "NULL", "default", "what it is"],
        [[f"`{c.name}`", _type(c), "yes" if c.nullable else "no", _default(c), c.comment or ""] for c in relation.c],
    )
    if details := [*_constraints(relation), *_storage(relation)]:
        yield from (*details, "")
    if triggers := sorted(map(_trigger, _of_kind(relation, "trigger"))):
        yield from _table(
            ["trigger", "fires", "function", "what the function does"],
            [[f"`{t.name}`", t.fires, f"`{_short(t.function)}()`", functions[t.function].purpose] for t in triggers],
        )
    else:
        yield from ("No trigger fires.", "")


def _constraints(table: Table[Any]) -> Iterator[str]:
    kinds = (PrimaryKeyConstraint, ForeignKeyConstraint, UniqueConstraint, CheckConstraint)
    found: list[tuple[int, str, Constraint]] = [
        (kinds.index(type(constraint)), str(constraint.name), constraint)
        for constraint in table.constraints
        if not isinstance(constraint, PrimaryKeyConstraint) or constraint.columns
    ]
    for _, name, constraint in sorted(found, key=lambda item: item[:2]):
        added = str(AddConstraint(constraint, isolate_from_table=False).compile(dialect=picture.DIALECT))
        yield f"- `{name}`: `{' '.join(added.split()).partition(f'CONSTRAINT {name} ')[2]}`"


def _storage(table: Table[Any]) -> Iterator[str]:
    settings = [item.create.rpartition(" SET ")[2].strip("()") for item in _of_kind(table, "storage parameter")]
    if settings:
        yield f"- Storage: `{', '.join(settings)}`"


def _trigger(item: Declared) -> Trigger:
    found = re.search(
        r"TRIGGER \S+ (?P<moment>.+?) ON \S+ .*?FOR EACH (?P<each>\w+)"
        r"(?: WHEN \((?P<when>.*)\))? EXECUTE FUNCTION (?P<function>\S+)\(",
        item.create,
    )
    if not found:
        raise SystemExit(f"Cannot read trigger {item.name}: {item.create}")
    when = found["when"]
    condition = (
        ""
        if not when
        else ", if another role than the owner writes"
        if when == IS_NOT_THE_ENGINE
        else f", when `{when}`"
    )
    fires = f"{found['moment']}, each {found['each'].lower()}{condition}"
    return Trigger(found["moment"].startswith("AFTER"), item.name, fires, found["function"])


def _functions() -> Iterator[Function]:
    grants = dict(granted(metadata))
    for owner in (metadata, *metadata.tables.values()):
        definitions = {item.name: item.create for item in _of_kind(owner, "function")}
        for item in _of_kind(owner, "comment"):
            if not item.create.startswith("COMMENT ON FUNCTION "):
                continue
            name = item.name.partition("(")[0]
            _, _, definition = definitions[name].partition(f"FUNCTION {name}(")
            arguments, _ = _to_closing(definition)
            callers = _callers(grants[f"FUNCTION {item.name}"])
            yield Function(name, ", ".join(_given(arguments)), _literal(item.create), callers)


def _callers(by_mode: Mapping[GrantMode, Grants]) -> str:
    """Who may execute a function, beside its owner."""
    if by_mode["open"] != by_mode["authenticated"]:
        raise SystemExit(f"Grants that differ by mode need words of their own: {by_mode}")
    roles = [role for role, privileges in by_mode["open"].items() if privileges]
    if roles == list(API_ROLES):
        return "the API roles"
    return "everybody" if roles == [PUBLIC] else ", ".join(f"`{role}`" for role in roles) or "the owner"


def _given(arguments: str) -> Iterator[str]:
    """Those that a caller gives: none that is OUT."""
    for argument in re.split(r",(?![^(]*\))", arguments):
        words = argument.split()
        if words and words[0] != "OUT":
            yield " ".join(words[1:] if words[0] in ("IN", "INOUT") else words).replace(" DEFAULT ", " = ")


def _to_closing(sql: str) -> tuple[str, str]:
    """What stands before the bracket that closes, and what after it."""
    depth = 1
    for place, character in enumerate(sql):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth:
            return sql[:place], sql[place + 1 :]
    raise SystemExit(f"No bracket closes: {sql}")


def _of_kind(owner: Any, kind: str) -> list[Declared]:
    return [item for item in declared(owner) if item.kind == kind]


def _comment(relation: Table[Any]) -> str:
    """The COMMENT of a table, or of a view, which declares it."""
    return relation.comment or _literal(_of_kind(relation, "comment")[0].create)


def _literal(comment: str) -> str:
    """The text of a COMMENT, whose literal may go on from line to line."""
    return "".join(re.findall(r"'((?:[^']|'')*)'", comment.partition(" IS")[2])).replace("''", "'")


def _type(column: Column[Any]) -> str:
    return f"`{picture.type_name(column)}`"


def _default(column: Column[Any]) -> str:
    default: Any = column.server_default
    if isinstance(default, Identity):
        return f"generated {'always' if default.always else 'by default'} as identity"
    return f"`{default.arg}`" if default is not None else ""


def _short(name: str) -> str:
    """The name as a session finds it: those of schema public without it."""
    return name.removeprefix("public.")


def _link(heading: str) -> str:
    return f"[{heading}](#{heading.replace('.', '')})"


def _escaped(text: str) -> str:
    """Text in which Markdown sees neither a tag nor the border of a cell."""
    parts = re.split("(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts).replace("|", r"\|")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield f"| {' | '.join(map(_escaped, row))} |".replace("|  |", "| |")
    yield ""


if __name__ == "__main__":
    sys.exit(main())
