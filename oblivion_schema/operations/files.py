"""Whether the files of the revisions fit together. Alembic itself warns, or fails with a traceback, if they do not."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alembic.util import to_tuple

from oblivion_schema.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True)
class _File:
    """One revision's file, read and not run; `after` are the revisions that it comes after or depends on."""

    name: str
    revision: str
    after: tuple[str, ...]
    labels: tuple[str, ...]
    is_first: bool


def require_sound_files(folder: str | Path) -> None:
    """Raise UserError, which names the file and the fix, unless the revisions in `folder` fit together.

    Each file is Python, has a number of its own that its name begins with, and comes after another one, or is the
    first; none of them go in a circle.
    """
    # Alembic skips the same names.
    paths = (path for path in sorted(Path(folder).glob("*.py")) if not path.name.startswith((".#", "__init__")))
    read = [_read(path) for path in paths]
    files = {file.revision: file for file in read}
    for file in read:
        if file is not (other := files[file.revision]):
            raise UserError(_twins(file, other, list(files)))
    known = {*files, *(label for file in files.values() for label in file.labels)}
    for file in files.values():
        if missing := [name for name in file.after if name not in known]:
            raise UserError(
                f"{file.name} comes after revision {missing[0]}, which no file has: restore the file of {missing[0]},"
                f" or correct down_revision in {file.name}."
            )
    if circle := list(_circle(files)):
        raise UserError(
            f"{', '.join(circle)}: down_revision goes in a circle. Correct it: a revision comes after an older one."
        )
    bases = [file.name for file in files.values() if file.is_first]
    if len(bases) > 1:
        raise UserError(f"{' and '.join(bases)} come after no revision: set down_revision in all but the first.")


def next_number(revisions: list[str]) -> str:
    """The number of the next revision, such as 006."""
    return f"{max((int(revision) for revision in revisions if revision.isdecimal()), default=0) + 1:03}"


def _read(path: Path) -> _File:
    try:
        module = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}," if isinstance(error, SyntaxError) and error.lineno else ""
        said = error.msg if isinstance(error, SyntaxError) else str(error)
        raise UserError(f"{path.name}{line} is not Python ({said}): correct it, or restore it.") from None
    values = dict(_assigned(module))
    revision = values.get("revision")
    if not isinstance(revision, str):
        raise UserError(
            f'{path.name} has no line revision = "006": write it with its own number, or move the file out of'
            f" {path.parent}."
        )
    number, mark, slug = path.stem.partition("_")
    if path.stem != revision and not path.stem.startswith(f"{revision}_"):
        raise UserError(
            f'{path.name} says revision = "{revision}": rename it to {revision}{mark}{slug}.py, with its folder, or'
            f' write revision = "{number}".'
        )
    before = to_tuple(values.get("down_revision"), default=())
    return _File(
        path.name,
        revision,
        tuple(map(str, (*before, *to_tuple(values.get("depends_on"), default=())))),
        tuple(map(str, to_tuple(values.get("branch_labels"), default=()))),
        is_first=not before,
    )


def _assigned(module: ast.Module) -> Iterator[tuple[str, object]]:
    """The names that a module gives a literal, and their values."""
    for statement in module.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        try:
            yield name, ast.literal_eval(value)
        except ValueError:
            continue


def _twins(one: _File, other: _File, revisions: list[str]) -> str:
    said = f"{one.name} and {other.name} are both revision {one.revision}"
    if not one.revision.isdecimal():
        return f"{said}: give one of them an id of its own."
    last = max((revision for revision in revisions if revision.isdecimal()), key=int)
    number = next_number(revisions)
    name = number + Path(other.name).stem.removeprefix(one.revision)
    return (
        f"{said}. Rename one of them, such as {other.name} to {name}.py, with its folder, and write in it"
        f' revision = "{number}" and down_revision = "{last}"; downgrade the databases that ran it before.'
    )


def _circle(files: Mapping[str, _File]) -> Iterator[str]:
    """The names of the files that come after each other."""
    left = dict(files)
    while free := [name for name, file in left.items() if not any(before in left for before in file.after)]:
        for name in free:
            del left[name]
    # What only comes after a circle is not in it.
    while ends := [name for name in left if not any(name in file.after for file in left.values())]:
        for name in ends:
            del left[name]
    yield from (file.name for file in left.values())
