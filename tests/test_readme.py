"""README and CONTRIBUTING tell the truth: CI runs the README's commands, and consoles show what commands print."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support import PROJECT, temporary_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.user

README = (PROJECT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (PROJECT / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS, WALK = (
    re.findall(r"^```(\w+)\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL) for page in (README, CONTRIBUTING)
)


def test_ci_runs_the_readmes_commands_as_written() -> None:
    ci = [line.strip() for line in (PROJECT / ".ci" / "run").read_text(encoding="utf-8").splitlines()]
    commands = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines() if ".venv/bin/" in line]
    assert len(commands) >= 4
    assert [command for command in commands if command not in ci] == []


@pytest.fixture
def home() -> Iterator[Path]:
    """A folder for the embedded database that the README's reader has."""
    path = temporary_home()
    yield path
    subprocess.run([*program("oblivion-schema"), "stop"], env=environment(path), check=True, capture_output=True)
    shutil.rmtree(path)


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "OBLIVION_EMBEDDED_DIR": str(home), "OBLIVION_EMBEDDED_VERSION": "18", "COLUMNS": "200"}


def program(name: str) -> list[str]:
    return [sys.executable, "-m", name.replace("-", "_")]


def comparable(printed: str) -> list[str]:
    """Lines without the paths, times and padding that differ from machine to machine; no view promises an order."""
    printed = re.sub(r"\S+(/postgresql-18|/alembic/versions/)", r"<home>\1", printed)
    printed = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+\S*", "<time>", printed)
    return sorted(re.sub(r"-{3,}", "---", " ".join(line.split())) for line in printed.splitlines() if line.strip())


@pytest.mark.full
def test_console_shows_what_the_commands_print(home: Path, tmp_path: Path) -> None:
    """Block by block: from a diff on in a copy of the project, to which it is applied."""
    place = PROJECT
    run = 0
    for kind, text in [*BLOCKS, *WALK]:
        if kind == "diff":
            for name in ("alembic", "oblivion_schema"):
                shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
            for name in ("alembic.ini", "pyproject.toml"):
                shutil.copy(PROJECT / name, tmp_path)
            applied = subprocess.run(["git", "apply", "-"], input=text, text=True, cwd=tmp_path, check=False)
            assert applied.returncode == 0, "CONTRIBUTING.md adds a column to user_presence: write its diff anew"
            place = tmp_path
        elif kind == "console":
            for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, flags=re.MULTILINE):
                assert comparable(printed(command, home, place)) == comparable(output), command
                run += 1
    assert run >= 10


def printed(command: str, home: Path, place: Path) -> str:
    """What a command of the README prints in `place`."""
    name, *arguments = shlex.split(command)
    start = program(name.removeprefix(".venv/bin/")) if name.startswith(".venv/bin/") else [name]
    return subprocess.run(
        [*start, *arguments],
        cwd=place,
        env=environment(home) | {"PYTHONPATH": str(place)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    ).stdout


def test_links_lead_somewhere() -> None:
    documents = [path for places in ("*.md", "docs/*.md", "examples/*/*.md") for path in PROJECT.glob(places)]
    headings = {document.resolve(): set(anchors(document)) for document in documents}
    for document in documents:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text(encoding="utf-8")):
            path = ((document.parent / target) if target else document).resolve()
            assert path.exists(), f"{document.name}: {target}"
            assert not anchor or anchor in headings[path], f"{document.name}: {target}#{anchor}"


def anchors(document: Path) -> Iterator[str]:
    """The headings, as GitHub links to them."""
    for heading in re.findall(r"^#+ (.*)", document.read_text(encoding="utf-8"), flags=re.MULTILINE):
        yield re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_tests_that_the_maintainers_page_names_are_there() -> None:
    named = re.findall(r"\btests/(\w+\.py)(?:::(\w+))?", CONTRIBUTING)
    assert len(named) >= 10
    for file, test in named:
        source = (PROJECT / "tests" / file).read_text(encoding="utf-8")
        assert f"def {test}(" in source or not test, f"{file}::{test}"


def test_python_example_runs(tmp_path: Path, upgraded: object) -> None:
    from sqlalchemy import URL

    assert isinstance(upgraded, URL)
    code, _ = [text for kind, text in BLOCKS if kind == "python"]  # tests/test_testing.py runs the other one
    url = upgraded.render_as_string(hide_password=False)
    example = tmp_path / "example.py"
    example.write_text(re.sub(r'"postgresql(\+psycopg2)?://[^"]*"', repr(url), code))
    ended = subprocess.run([sys.executable, example], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "demo_user 500\n" in ended.stdout
