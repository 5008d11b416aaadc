"""docs/schema.md and the README's picture are what the metadata says. No test here needs a database."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import PrimaryKeyConstraint
from support import PROJECT

from oblivion_schema import __version__, metadata
from oblivion_schema.declare.ddl import declared

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

PAGE = (PROJECT / "docs" / "schema.md").read_text(encoding="utf-8")
README = (PROJECT / "README.md").read_text(encoding="utf-8")
RELATIONS = list(metadata.tables.values())


def test_generated_parts_are_what_the_metadata_says() -> None:
    program = [sys.executable, str(PROJECT / "docs" / "generate.py"), "--check"]
    ended = subprocess.run(program, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, f"{ended.stdout}{ended.stderr}"


def test_docs_install_the_version_that_the_changes_begin_with() -> None:
    docs = "".join(
        (PROJECT / "docs" / f"{page}.md").read_text(encoding="utf-8") for page in ("installing", "typescript")
    )
    files = re.findall(r"oblivion(?:_schema|-schema-client)-(\d+\.\d+\.\d+)[.-]", docs)
    [newest, *_] = re.findall(r"^## (\S+)", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert {*files} == {__version__}
    assert newest in {__version__, "Unreleased"}


@pytest.mark.parametrize("relation", RELATIONS, ids=lambda relation: relation.fullname)
def test_reference_has_each_column_with_its_comment_and_each_trigger(relation: Table[Any]) -> None:
    [section] = re.findall(
        rf"^#### {re.escape(relation.fullname)}\n(.*?)(?=^###)", PAGE, flags=re.MULTILINE | re.DOTALL
    )
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", section, flags=re.MULTILINE)
    triggers = {item.name for item in declared(relation) if item.kind == "trigger"}
    assert [name for name, _ in rows if name not in triggers] == relation.c.keys()
    assert {name for name, _ in rows if name in triggers} == triggers
    said = dict(rows)
    for column in relation.c:
        assert column.comment
        assert said[column.name].strip().endswith(column.comment.replace("<", "&lt;").replace("|", r"\|"))


def test_page_names_each_constraint_and_index() -> None:
    constraints = [constraint for table in RELATIONS for constraint in table.constraints]
    # SQLAlchemy gives an empty one to a table without a key, and to a view.
    named = [c for c in constraints if not isinstance(c, PrimaryKeyConstraint) or c.columns]
    names = {str(constraint.name) for constraint in named}
    names |= {str(index.name) for table in RELATIONS for index in table.indexes}
    names |= {item.name for table in RELATIONS for item in declared(table) if item.kind == "index"}
    missing = {name for name in names if not re.search(rf"\b{name}\b", PAGE)}
    assert not missing, "Say in docs/schema.md, Indexes, which query an index serves; docs/generate.py writes the rest."


def test_page_names_each_function() -> None:
    owners: list[Table[Any] | MetaData] = [metadata, *RELATIONS]
    names = {item.name for owner in owners for item in declared(owner) if item.kind == "function"}
    assert len(names) > 40
    assert {name for name in names if f"`{name.removeprefix('public.')}(" not in PAGE} == set()


def test_readmes_picture_has_each_public_table_and_view() -> None:
    [picture] = re.findall(r"^```mermaid\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
    public = {relation.name for relation in RELATIONS if relation.schema is None}
    assert set(re.findall(r"^  (\w+)(?: \{)?$", picture, flags=re.MULTILINE)) == public
    views = {relation.name for relation in RELATIONS if relation.schema is None and relation.is_view}
    assert set(re.findall(r"(\w+) : reads$", picture, flags=re.MULTILINE)) == views
