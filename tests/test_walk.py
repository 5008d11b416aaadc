"""CONTRIBUTING's walk, followed to the letter in a copy of the project: then it is ready."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Final
from xml.etree import ElementTree as ET

import pytest
from support import PROJECT, REVISIONS, libpq, query

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL

WALK: Final = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## 1. ")[2].partition("\n## 2. ")[0]
NEXT: Final = f"{int(REVISIONS[-1]) + 1:03}"

# Those that see a new revision or a new column, and take little time.
TESTS: Final = {
    "tests/test_schema.py": "documented or comment",
    "tests/test_revisions.py": "rows_to_lose or numbered or import",
    "tests/test_delivery.py": "committed or names_are or one_statement or linter",
    "tests/test_docs.py": "",
    "tests/test_readme.py": "links or tests_that",
    "tests/test_frozen.py": "released",
}
ASKS: Final = {
    "test_table_has_the_documented_columns_in_order[user_presence]": "of tests/test_schema.py what clients are to get",
    "test_every_revision_has_rows_to_lose": f"into ROWS of tests/test_revisions.py what the downgrade of ['{NEXT}']",
}
ASKS_WHY: Final = "test_file_is_one_statement_and_nothing_that_some_way_cannot_take"


def blocks(kind: str) -> list[str]:
    """The code blocks of the walk that are of one kind."""
    return re.findall(rf"^ *```{kind}\n(.*?)^ *```$", WALK, flags=re.MULTILINE | re.DOTALL)


class Copy:
    """A copy of the project, and the database of whoever works in it."""

    def __init__(self, folder: Path, url: URL) -> None:
        junk = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis", "*.egg-info", "dist")
        shutil.copytree(PROJECT, folder, ignore=junk)
        self.folder = folder
        # What pytest says of this process would be taken for the copy's.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        self.environment = inherited | {"PYTHONPATH": str(folder), "OBLIVION_DATABASE_URL": libpq(url)}

    def do(self, *words: str, may_fail: bool = False) -> str:
        """Run a command of the walk; its output."""
        names = {".venv/bin/alembic": ["-m", "alembic"], ".venv/bin/oblivion-schema": ["-m", "oblivion_schema"]}
        command = [sys.executable, *names.get(words[0], [] if words[0].endswith("python") else [words[0]]), *words[1:]]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert may_fail or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def failures(self) -> dict[str, str]:
        """The tests that fail, and what they say."""
        found = {}
        selected = " or ".join(
            f"({name.removeprefix('tests/')} and ({words}))" if words else name.removeprefix("tests/")
            for name, words in TESTS.items()
        )
        report = self.folder / "report.xml"
        options = ("-n", "0", "-q", "-m", "", "-k", selected, f"--junitxml={report}")
        said = self.do("python", "-m", "pytest", *options, *TESTS, may_fail=True)
        assert " passed" in said, said
        for case in ET.parse(report).iter("testcase"):
            for failure in [*case.iter("failure"), *case.iter("error")]:
                found[str(case.get("name"))] = f"{failure.get('message')}{failure.text}"
        return found

    def change(self, name: str, old: str, new: str) -> None:
        """Edit a file, as a person would."""
        file = self.folder / name
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name}: {old}"
        file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.full
def test_new_column_asks_for_two_decisions_and_then_it_is_ready(upgraded: URL, tmp_path: Path) -> None:
    copy = Copy(tmp_path / "project", upgraded)
    [diff] = blocks("diff")
    subprocess.run(["git", "apply", "-"], input=diff, text=True, cwd=copy.folder, check=True)
    [autogenerate] = re.findall(r"^\$ (\S+ revision .*) -m \"(.*)\"$", WALK, flags=re.MULTILINE)
    copy.do(*autogenerate[0].split(), "-m", autogenerate[1])
    [commands, *_] = blocks("sh")
    write = [line.split() for line in commands.splitlines()]
    for command in write:
        copy.do(*command)
    # Step 1 was left out.
    failures = copy.failures()
    [unexplained] = [failures.pop(name) for name in list(failures) if name.startswith(ASKS_WHY)]
    assert f"say it in the docstring of revision {NEXT}_why_a_host_is_away: Why: ..." in unexplained
    assert failures.keys() == ASKS.keys()
    for name, says in ASKS.items():
        assert says in failures[name], failures[name]

    revision = f"alembic/versions/{NEXT}_why_a_host_is_away.py"
    copy.change(revision, "Why:\nLocks:\n", "Why: callers want to know.\nLocks: user_presence, for a moment.\n")
    for command in write:
        copy.do(*command)
    [decisions] = blocks("text")
    column, rows = (line.strip() for line in decisions.splitlines())
    last = "        room_token    text                      null\n"
    copy.change("tests/test_schema.py", last, f"{last}        {column}\n")
    copy.change("tests/test_revisions.py", "ROWS = {\n", f"ROWS = {{\n    {rows}\n")
    assert copy.failures() == {}
    assert query(upgraded, "SELECT version_num FROM oblivion.alembic_version") == [(NEXT,)]
