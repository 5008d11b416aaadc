"""Revisions as files: those that do not fit together are named in one line, and branches are merged."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from itertools import permutations
from typing import TYPE_CHECKING, Final

import pytest
from support import PROJECT, REVISIONS, declared, dump, execute, psql, query, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL

HEAD: Final = REVISIONS[-1]
NEXT, AFTER_NEXT, LAST = (f"{int(HEAD) + more:03}" for more in (1, 2, 3))
NOWHERE: Final = "postgresql://nobody@127.0.0.1:1/nothing"

# Those that ask which revisions there are. None of them gets as far as the database.
COMMANDS: Final = (
    "upgrade head",
    "upgrade heads",
    "upgrade head --sql",
    f"downgrade {HEAD}",
    f"downgrade {HEAD}:base --sql",
    "stamp head",
    "current",
    "check",
    "check --sql",
    "check --against postgresql://nobody@127.0.0.1:1/nothing",
    "revision -m more",
    "revision --autogenerate -m more",
    "merge heads",
    "history",
    "history -i",
    "heads",
    "branches",
    "show head",
    "inspect",
    "prepare",
    "prepare --sql",
    "verify",
    "export exported",
)


class Revisions:
    """A copy of the project's revisions, to which others are added."""

    def __init__(self, folder: Path) -> None:
        shutil.copytree(PROJECT / "alembic", folder / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "alembic.ini", folder)
        self.folder = folder
        self.versions = folder / "alembic" / "versions"
        self.here = ("-c", str(folder / "alembic.ini"))

    def write(self, name: str, before: str | None = HEAD, sql: str = "CREATE TABLE public.{0} (id integer)") -> Path:
        """Write the revision `name`, such as 006_rooms, which makes a table of its slug."""
        number, _, slug = name.partition("_")
        file = self.versions / f"{name}.py"
        file.write_text(
            f'"""Rooms.\n\nWhy: a test.\nLocks: nothing.\n"""\n\nfrom oblivion_schema.operations import run_sql\n\n'
            f'revision = "{number}"\ndown_revision = {before!r}\nbranch_labels = None\ndepends_on = None\n\n\n'
            f'def upgrade() -> None:\n    run_sql("{sql.format(slug)}")\n\n\n'
            f'def downgrade() -> None:\n    run_sql("DROP TABLE public.{slug}")\n'
        )
        return file

    def state(self) -> dict[str, bytes]:
        """What all files say."""
        files = (path for path in self.folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {str(path): path.read_bytes() for path in files}


@pytest.fixture
def revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Revisions:
    monkeypatch.chdir(tmp_path)
    return Revisions(tmp_path)


def twins(revisions: Revisions) -> tuple[str, ...]:
    for slug in ("rooms", "stairs"):
        revisions.write(f"{NEXT}_{slug}")
    return (
        f"{NEXT}_rooms.py",
        f"{NEXT}_stairs.py",
        f"both revision {NEXT}",
        f'revision = "{AFTER_NEXT}" and down_revision = "{NEXT}"',
    )


def unknown(revisions: Revisions) -> tuple[str, ...]:
    revisions.write(f"{NEXT}_rooms", "999")
    return f"{NEXT}_rooms.py comes after revision 999, which no file has", "restore the file of 999, or correct"


def circle(revisions: Revisions) -> tuple[str, ...]:
    revisions.write(f"{NEXT}_rooms", AFTER_NEXT)
    revisions.write(f"{AFTER_NEXT}_stairs", NEXT)
    revisions.write(f"{LAST}_after_the_circle", AFTER_NEXT)
    return (f"{NEXT}_rooms.py, {AFTER_NEXT}_stairs.py: down_revision goes in a circle. Correct it",)


def misnamed(revisions: Revisions) -> tuple[str, ...]:
    file = revisions.write(f"{NEXT}_rooms")
    file.rename(file.with_name(f"{AFTER_NEXT}_rooms.py"))
    return f'{AFTER_NEXT}_rooms.py says revision = "{NEXT}": rename it to {NEXT}_rooms.py', f'"{AFTER_NEXT}"'


def no_python(revisions: Revisions) -> tuple[str, ...]:
    file = revisions.write(f"{NEXT}_rooms")
    text = file.read_text()
    file.write_text(f"{text}<<<<<<< ours\n")
    return (f"{NEXT}_rooms.py, line {text.count(chr(10)) + 1}, is not Python (invalid syntax): correct it",)


def no_python_at_the_start(revisions: Revisions) -> tuple[str, ...]:
    [first] = revisions.versions.glob(f"{REVISIONS[0]}_*.py")
    first.write_text("<<<<<<< ours\n")
    return f"{first.name}, line 1, is not Python", "restore it"


def no_number(revisions: Revisions) -> tuple[str, ...]:
    (revisions.versions / "helper.py").write_text("answer = 42\n")
    return 'helper.py has no line revision = "006"', "move the file out of"


def two_bases(revisions: Revisions) -> tuple[str, ...]:
    revisions.write(f"{NEXT}_rooms", None)
    return f"and {NEXT}_rooms.py come after no revision", "set down_revision"


BREAKS: Final = (twins, unknown, circle, misnamed, no_python, no_python_at_the_start, no_number, two_bases)


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.__name__)
def test_files_that_do_not_fit_together_are_named_by_every_command_in_one_line(
    revisions: Revisions, breaks: Callable[[Revisions], tuple[str, ...]]
) -> None:
    says = breaks(revisions)
    before = revisions.state()
    for command in COMMANDS:
        error = run(*revisions.here, *command.split(), url=NOWHERE).error
        assert [word for word in says if word not in error] == [], f"{command}: {error}"
    assert revisions.state() == before


@pytest.mark.parametrize("breaks", BREAKS, ids=lambda breaks: breaks.__name__)
@pytest.mark.few(breaks=0)
def test_alembic_itself_names_them_too(revisions: Revisions, breaks: Callable[[Revisions], tuple[str, ...]]) -> None:
    """Some of its commands do not run env.py: there the first revision looks."""
    says = breaks(revisions)
    for command in ("upgrade head", "heads", "show head", "branches"):
        if breaks is no_python_at_the_start and command != "upgrade head":
            continue  # then nothing of ours is run
        alembic = [sys.executable, "-m", "alembic", "-x", f"url={NOWHERE}", *command.split()]
        ended = subprocess.run(alembic, capture_output=True, text=True, check=False)
        assert ended.returncode != 0
        assert "Traceback" not in ended.stderr
        [line] = [line for line in ended.stdout.splitlines() if "FAILED: " in line]
        assert all(word in line for word in says), line


def test_what_the_line_says_mends_two_files_of_one_number(revisions: Revisions) -> None:
    twins(revisions)
    error = run(*revisions.here, "heads").error
    [(old, new)] = re.findall(r"such as (\w+\.py) to (\w+\.py)", error)
    [number] = re.findall(r'revision = "(\d+)" and', error)
    [before] = re.findall(r'down_revision = "(\d+)"', error)
    text = (revisions.versions / old).read_text()
    text = text.replace(f'\nrevision = "{NEXT}"', f'\nrevision = "{number}"').replace(f"'{HEAD}'", f"'{before}'")
    (revisions.versions / old).unlink()
    (revisions.versions / new).write_text(text)
    assert run(*revisions.here, "heads").out == f"{AFTER_NEXT} (head)\n"
    assert run(*revisions.here, "export", "exported").status == 0


def test_missing_sql_file_is_named_by_every_command_that_reads_it(revisions: Revisions) -> None:
    shutil.rmtree(next(path for path in revisions.versions.iterdir() if path.is_dir() and path.name > "003"))
    for command in ("upgrade head --sql", "prepare --sql", "prepare", "export exported"):
        error = run(*revisions.here, *command.split()).error
        assert re.search(r"\.sql is missing, but its revision needs it: restore the file", error), error
    assert not (revisions.folder / "exported").exists()


# -- Two newest revisions


def branch(revisions: Revisions) -> None:
    for name in (f"{NEXT}_rooms", f"{AFTER_NEXT}_stairs"):
        revisions.write(name)


NEED_ONE: Final = [
    command
    for command in COMMANDS
    if command.split()[0] in {"check", "inspect", "prepare", "revision", "verify", "export"}
]


@pytest.mark.parametrize("command", [*NEED_ONE, "upgrade head", "upgrade head --sql"])
def test_command_about_the_newest_revision_names_two_of_them(revisions: Revisions, command: str) -> None:
    branch(revisions)
    before = revisions.state()
    error = run(*revisions.here, *command.split(), url=NOWHERE).error
    assert f"2 revisions are the newest, {NEXT}_rooms.py and {AFTER_NEXT}_stairs.py." in error
    assert error.endswith("alembic merge heads.")
    assert revisions.state() == before


def test_mode_is_not_switched_between_two_newest_revisions(revisions: Revisions, upgraded: URL) -> None:
    branch(revisions)
    for command in ("access authenticated", "pages metered", "pages", "-x access=authenticated upgrade head"):
        assert "2 revisions are the newest" in run(*revisions.here, *command.split(), url=upgraded).error


def test_other_commands_take_two_newest_revisions_as_alembic_does(revisions: Revisions, upgraded: URL) -> None:
    branch(revisions)
    both = [NEXT, AFTER_NEXT]
    assert sorted(run(*revisions.here, "heads").out.split()[::2]) == both
    assert run(*revisions.here, "upgrade", "heads", url=upgraded).status == 0
    assert sorted(map(str, query(upgraded, "SELECT version_num FROM oblivion.alembic_version"))) == [
        f"('{name}',)" for name in both
    ]
    assert sorted(run(*revisions.here, "current", url=upgraded).out.split()[::2]) == both
    assert run(*revisions.here, "downgrade", HEAD, url=upgraded).status == 0


def merge(revisions: Revisions, *words: str) -> None:
    result = run(*revisions.here, "merge", *(words or ("heads",)))
    assert result.status == 0, result


def test_merge_has_the_next_number_and_our_form(revisions: Revisions) -> None:
    branch(revisions)
    merge(revisions)
    text = (revisions.versions / f"{LAST}_merge_{NEXT}_and_{AFTER_NEXT}.py").read_text()
    assert text.startswith(f'"""merge {NEXT} and {AFTER_NEXT}.\n\nWhy:\nLocks:\n\nRevision {LAST}, after {NEXT}, ')
    assert f'\nrevision = "{LAST}"\ndown_revision = ("{NEXT}", "{AFTER_NEXT}")\n' in text
    assert run(*revisions.here, "heads").out == f"{LAST} (head)\n"
    assert "There is one newest revision" in run(*revisions.here, "merge", "heads").error


def test_merge_takes_a_message_and_an_id(revisions: Revisions) -> None:
    branch(revisions)
    assert "there is a revision 001 already" in run(*revisions.here, "merge", "--rev-id", "001", "heads").error
    assert "A revision needs a message" in run(*revisions.here, "merge", "-m", "back\\slash", "heads").error
    merge(revisions, "-m", "rooms have stairs", "--rev-id", "100", NEXT, AFTER_NEXT)
    assert (revisions.versions / "100_rooms_have_stairs.py").is_file()


def test_new_revision_does_not_take_the_id_of_another(revisions: Revisions) -> None:
    before = revisions.state()
    error = run(*revisions.here, "revision", "-m", "rooms", "--rev-id", HEAD).error
    assert f"--rev-id {HEAD}: there is a revision {HEAD} already" in error
    assert revisions.state() == before


TABLES: Final = ("CREATE TABLE public.rooms (id integer)", "CREATE TABLE public.stairs (id integer)")


def test_merged_revisions_go_up_and_down_and_are_clean(
    revisions: Revisions, upgraded: URL, new_database: Callable[..., URL]
) -> None:
    branch(revisions)
    merge(revisions)
    before = dump(upgraded, numbers=False)
    script = new_database()
    for command in ("upgrade", "check", "inspect", "verify", f"downgrade {HEAD}", "upgrade"):
        with declared(*TABLES):
            words = ["upgrade", "head"] if command == "upgrade" else command.split()
            result = run(*revisions.here, *words, url=upgraded)
        assert result.status == 0, result
        assert f"Upgrades pending: {LAST}" not in result.out
        if command.startswith("downgrade"):
            assert dump(upgraded, numbers=False) == before
    assert "name the revision to go to" in run(*revisions.here, "downgrade", "-1", url=upgraded).error
    printed = run(*revisions.here, "upgrade", "head", "--sql")
    psql(script, printed.out)
    assert dump(script, numbers=False) == dump(upgraded, numbers=False)


@pytest.mark.parametrize("applied", [(), (NEXT,), (AFTER_NEXT,), (NEXT, AFTER_NEXT), (LAST,)])
def test_exported_files_of_merged_revisions_end_where_alembic_does(
    revisions: Revisions, upgraded: URL, applied: tuple[str, ...]
) -> None:
    """Whichever of the branches a database has; and a second time they change nothing."""
    branch(revisions)
    merge(revisions)
    assert run(*revisions.here, "export", "exported").status == 0
    files = sorted((revisions.folder / "exported").iterdir())
    for revision in applied:
        assert run(*revisions.here, "upgrade", revision, url=upgraded).status == 0
    for file in [*files, *files]:
        execute(upgraded, file.read_text())
    assert query(upgraded, "SELECT version_num FROM oblivion.alembic_version") == [(LAST,)]
    with declared(*TABLES):
        assert run(*revisions.here, "check", url=upgraded).status == 0


def test_exported_files_of_branches_leave_what_alembic_would(revisions: Revisions, upgraded: URL) -> None:
    branch(revisions)
    merge(revisions)
    assert run(*revisions.here, "export", "exported").status == 0
    *_, rooms, stairs, both = sorted((revisions.folder / "exported").iterdir())
    at = "SELECT string_agg(version_num, ' ' ORDER BY version_num) FROM oblivion.alembic_version"
    for one, other in permutations((rooms, stairs)):
        execute(upgraded, one.read_text())
        assert query(upgraded, at) == [(NEXT if one == rooms else AFTER_NEXT,)]
        with pytest.raises(
            Exception, match=f"Revision {LAST} comes after {NEXT if one == stairs else AFTER_NEXT}, which"
        ):
            execute(upgraded, both.read_text())
        execute(upgraded, other.read_text())
        assert query(upgraded, at) == [(f"{NEXT} {AFTER_NEXT}",)]
        assert run(*revisions.here, "downgrade", HEAD, url=upgraded).status == 0
