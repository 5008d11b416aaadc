"""Freeze what the revisions execute: once they are released, databases have run it, and only a new revision helps.

    .venv/bin/python tests/freeze.py

It adds the revisions that are not in frozen.json yet. What is in it stays: tests/test_frozen.py compares it.

Frozen is the SQL that `--sql` prints of a revision's upgrade and of its downgrade, which is what a run on a database
executes. So an operation of the package that prints other SQL than before is noticed, too, while the format and the
comments of a .py file are free. The digest of each file only tells which of them changed.
"""

from __future__ import annotations

import json
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from alembic.script import ScriptDirectory
from alembic.util import CommandError, to_tuple

from oblivion_schema.deploy import upgrade as migrate
from oblivion_schema.deploy.export import statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from alembic.script import Script

FROZEN: Final = Path(__file__).with_name("frozen.json")
COMMAND: Final = ".venv/bin/python tests/freeze.py"
_MEND: Final = (
    "put it back as it was (git log), and write a new revision: databases that have this one never run it again"
)

Entry = dict[str, Any]


def main() -> int:
    """Freeze what is not frozen yet; status 1 if what is frozen has changed."""
    revisions = ScriptDirectory.from_config(migrate.config())
    frozen = read()
    if problems := list(changes(frozen, revisions)):
        sys.stderr.write("\n".join([*problems, "Nothing was written.", ""]))
        return 1
    new = {script.revision: entry(script) for script in revisions.walk_revisions() if script.revision not in frozen}
    FROZEN.write_text(json.dumps(dict(sorted((frozen | new).items())), indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(f"Frozen: {', '.join(sorted(new)) or 'nothing new'}.\n")
    return 0


def read() -> dict[str, Entry]:
    """What is frozen, by revision; nothing is before the first release."""
    return dict(json.loads(FROZEN.read_text(encoding="utf-8"))) if FROZEN.exists() else {}


def entry(script: Script) -> Entry:
    """What is frozen of a revision."""
    return {
        "after": list(to_tuple(script.down_revision, default=())),
        "upgrade": _digest("\n".join(statements(script))),
        "downgrade": _digest("\n".join(statements(script, down=True))),
        "files": {name: _digest(path.read_text(encoding="utf-8")) for name, path in _files(script).items()},
    }


def changes(frozen: Mapping[str, Entry], revisions: ScriptDirectory) -> Iterator[str]:
    """A line for each thing that is not as it was frozen: the file, and what to do."""
    there = {script.revision: script for script in revisions.walk_revisions()}
    for revision, was in frozen.items():
        said = f"Revision {revision} is released"
        script = there.get(revision)
        if script is None:
            yield f"{said}, and its file {next(iter(was['files']))} is gone: restore it from git."
            continue
        files = _files(script)
        gone, new = sorted(was["files"].keys() - files), sorted(files.keys() - was["files"])
        yield from (f"{said}, and {name} is gone: restore it from git." for name in gone)
        yield from (f"{said}, and {name} is new: a new revision needs a folder of its own." for name in new)
        try:
            now = entry(script)
        except CommandError:  # it needs a file that is gone
            continue
        if now["after"] != was["after"]:
            yield f"{said}, and comes after {now['after']} now, not {was['after']}: correct down_revision."
        changed = [name for name, digest in now["files"].items() if was["files"].get(name, digest) != digest]
        sql = [name for name in changed if name.endswith(".sql")]
        for way in ("upgrade", "downgrade"):
            if now[way] != was[way] and not (gone or new):
                of_the_way = [name for name in sql if ("/down/" in name) == (way == "downgrade")]
                names = ", ".join(of_the_way or sql or changed)
                which = names or "an operation that it calls (oblivion_schema/operations, or Alembic's)"
                yield f"{said}, and its {way} executes other SQL, because {which} changed: {_MEND}."


def _files(script: Script) -> dict[str, Path]:
    """The files of a revision: its own first, then those in its folder."""
    path = Path(script.path)
    folder = path.with_suffix("")
    files = [path, *sorted(file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)]
    return {file.relative_to(path.parent).as_posix(): file for file in files}


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
