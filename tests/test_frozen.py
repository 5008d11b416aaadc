"""What a released revision executes never changes."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, Final

import freeze
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from support import PROJECT, REVISIONS, examples

from oblivion_schema import operations
from oblivion_schema.deploy import upgrade as migrate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SQL_FILES: Final = sorted(
    path.relative_to(PROJECT / "alembic" / "versions").as_posix()
    for path in (PROJECT / "alembic" / "versions").rglob("*.sql")
)


def test_released_revisions_execute_what_they_did() -> None:
    found = list(freeze.changes(freeze.read(), ScriptDirectory.from_config(migrate.config())))
    assert not found, "\n".join(found)


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """A copy of the revisions."""
    shutil.copytree(PROJECT / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "alembic" / "versions"


@pytest.fixture(scope="session")
def frozen() -> dict[str, freeze.Entry]:
    """What would be frozen of all revisions."""
    revisions = ScriptDirectory.from_config(migrate.config())
    return {script.revision: freeze.entry(script) for script in revisions.walk_revisions()}


def changes(versions: Path, frozen: dict[str, freeze.Entry], *revisions: str) -> list[str]:
    """What is said of the copy, where only `revisions` are frozen, or all are."""
    config = Config()
    config.set_main_option("script_location", str(versions.parent))
    of = {name: entry for name, entry in frozen.items() if not revisions or name in revisions}
    return list(freeze.changes(of, ScriptDirectory.from_config(config)))


def test_untouched_copy_has_not_changed(versions: Path, frozen: dict[str, freeze.Entry]) -> None:
    assert changes(versions, frozen) == []


@pytest.mark.parametrize("name", SQL_FILES[:: examples(1, quick=25)])
def test_changed_sql_file_is_named(versions: Path, frozen: dict[str, freeze.Entry], name: str) -> None:
    file = versions / name
    text = file.read_text()
    end = text.rstrip().removesuffix(";")
    file.write_text(
        f"{end} -- and more\n;\n" if "\n\n" not in end else end.replace("\n\n", " -- and more\n\n", 1) + ";\n"
    )
    said = changes(versions, frozen, name[:3])
    assert said
    for line in said:
        assert f"Revision {name[:3]} is released" in line
        assert re.search(rf"because .*{re.escape(name)}.* changed: put it back", line), line


@pytest.mark.parametrize("way", ["upgrade", "downgrade"])
@pytest.mark.parametrize("revision", REVISIONS)
def test_changed_statement_in_a_revision_names_its_file(
    versions: Path, frozen: dict[str, freeze.Entry], revision: str, way: str
) -> None:
    [file] = versions.glob(f"{revision}_*.py")
    start = f"def {way}() -> None:\n"
    file.write_text(file.read_text().replace(start, f'{start}    run_sql("SELECT 1")\n'))
    [line] = changes(versions, frozen, revision)
    assert f"its {way} executes other SQL, because {file.name} changed" in line


def test_format_and_comments_of_a_revision_are_free(versions: Path, frozen: dict[str, freeze.Entry]) -> None:
    for file in versions.glob("*.py"):
        text = re.sub(r'\A"""', '"""Once more: ', file.read_text())
        file.write_text("# A comment.\n" + text.replace("def upgrade() -> None:\n", "def upgrade():\n    # Also.\n\n"))
    assert changes(versions, frozen) == []


def test_changed_operation_is_noticed(
    versions: Path, frozen: dict[str, freeze.Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_JOIN_REALTIME", operations._JOIN_REALTIME.replace("NOT puballtables", "true"))  # noqa: SLF001
    said = changes(versions, frozen)
    assert said
    assert all("executes other SQL, because an operation that it calls" in line for line in said)


def gone_file(versions: Path) -> str:
    (versions / SQL_FILES[0]).unlink()
    return f"and {SQL_FILES[0]} is gone: restore it"


def new_file(versions: Path) -> str:
    file = (versions / SQL_FILES[0]).with_name("more.sql")
    file.write_text("SELECT 1;\n")
    return f"and {file.parent.name}/more.sql is new: a new revision needs a folder of its own"


def gone_revision(versions: Path) -> str:
    [file] = versions.glob(f"{REVISIONS[-1]}_*.py")
    file.unlink()
    return f"Revision {REVISIONS[-1]} is released, and its file {file.name} is gone: restore it"


def other_place(versions: Path) -> str:
    [file] = versions.glob(f"{REVISIONS[-1]}_*.py")
    before = f'down_revision = "{REVISIONS[-2]}"'
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, f'down_revision = "{REVISIONS[-3]}"'))
    return f"comes after ['{REVISIONS[-3]}'] now, not ['{REVISIONS[-2]}']: correct down_revision"


@pytest.mark.parametrize("change", [gone_file, new_file, gone_revision, other_place], ids=lambda c: c.__name__)
def test_file_that_is_gone_new_or_elsewhere_is_named(
    versions: Path, frozen: dict[str, freeze.Entry], change: Callable[[Path], str]
) -> None:
    said = change(versions)
    [line] = changes(versions, frozen)
    assert said in line


def test_command_adds_what_is_new_and_keeps_what_is_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], frozen: dict[str, freeze.Entry]
) -> None:
    monkeypatch.setattr(freeze, "FROZEN", tmp_path / "frozen.json")
    assert freeze.read() == {}
    assert freeze.main() == 0
    assert capsys.readouterr().out == f"Frozen: {', '.join(REVISIONS)}.\n"
    assert freeze.read() == frozen
    assert freeze.main() == 0
    assert capsys.readouterr().out == "Frozen: nothing new.\n"

    text = freeze.FROZEN.read_text().replace(frozen[REVISIONS[0]]["upgrade"], "0" * 64)
    freeze.FROZEN.write_text(text)
    assert freeze.main() == 1
    said = capsys.readouterr().err
    assert f"Revision {REVISIONS[0]} is released, and its upgrade executes other SQL" in said
    assert freeze.FROZEN.read_text() == text
