"""Revisions: up, down and up again, online and as a script, to the same catalogs, losing no row."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from alembic.script import ScriptDirectory
from pytest_alembic.tests import (  # noqa: F401 - collected as tests of this module
    test_model_definitions_match_ddl,
    test_single_head_revision,
    test_up_down_consistency,
    test_upgrade,
)
from sqlalchemy import Boolean, Column, MetaData, Named, NullPool, TypedColumns, create_engine
from support import PROJECT, dump, execute, psql, query, run

from oblivion_schema import metadata
from oblivion_schema.declare.ddl import view
from oblivion_schema.deploy import upgrade as migrate

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL

REVISIONS = [script.revision for script in ScriptDirectory.from_config(migrate.config()).walk_revisions()][::-1]
STAGES = ["base", *REVISIONS]
STEPS = [*pairwise(STAGES), *pairwise(STAGES[::-1])]


def move(url: URL, start: str, end: str, *options: str, offline: bool) -> None:
    """Take the database one way or the other, online or by the script that --sql prints."""
    command = "upgrade" if STAGES.index(end) > STAGES.index(start) else "downgrade"
    if offline:
        script = run(*options, command, f"{start}:{end}", "--sql")
        assert script.status == 0, script
        psql(url, script.out)
    else:
        result = run(*options, command, end, url=url)
        assert result.status == 0, result


@pytest.mark.parametrize("owner", [False, True], ids=["superuser", "owner"])
@pytest.mark.few(owner="True")
@pytest.mark.server
def test_every_step_online_and_by_script_leaves_the_same_catalogs(
    new_database: Callable[..., URL], *, owner: bool
) -> None:
    online, offline = new_database(owner=owner), new_database(owner=owner)
    at = {"base": dump(offline)}
    for start, end in [*STEPS, *STEPS[: len(REVISIONS)]]:
        move(online, start, end, offline=False)
        move(offline, start, end, offline=True)
        found = dump(online).replace(str(online.database), str(offline.database))
        assert dump(offline) == found, f"{start} -> {end}"
        assert at.setdefault(end, found) == found, f"{start} -> {end}: not what it was before"


@pytest.mark.parametrize("offline", [False, True], ids=["online", "script"])
@pytest.mark.few(offline="False")
@pytest.mark.server
def test_whole_way_up_and_down_leaves_nothing_of_ours(new_database: Callable[..., URL], *, offline: bool) -> None:
    url = new_database(owner=True)
    before = dump(url)
    move(url, "base", REVISIONS[-1], offline=offline)
    assert dump(url) != before
    move(url, REVISIONS[-1], "base", offline=offline)
    assert dump(url) == before


def test_downgrade_of_an_empty_database_leaves_nothing(empty: URL) -> None:
    before = dump(empty)
    assert run("downgrade", "base", url=empty).status == 0
    assert dump(empty) == before


@pytest.mark.parametrize("command", [["current"], ["check"], ["history", "-i"]])
def test_commands_that_look_leave_an_empty_database_alone(empty: URL, command: list[str]) -> None:
    before = dump(empty)
    run(*command, url=empty)
    assert dump(empty) == before


def test_second_upgrade_changes_nothing(upgraded: URL) -> None:
    before = dump(upgraded)
    assert run("upgrade", "head", url=upgraded).status == 0
    assert dump(upgraded) == before


def test_revisions_that_take_over_run_again_and_change_nothing(upgraded: URL) -> None:
    assert run("downgrade", "003", url=upgraded).status == 0
    execute(upgraded, "UPDATE user_accounts SET tokens_remaining = 7 WHERE user_id = 'demo_user'")
    execute(upgraded, "UPDATE user_accounts SET tokens_remaining = 7000 WHERE user_id = 'developer'")
    before = dump(upgraded)
    assert run("stamp", "base", url=upgraded).status == 0
    assert run("upgrade", "003", url=upgraded).status == 0
    assert dump(upgraded) == before


@pytest.mark.parametrize("stamped", ["base", "003"])
def test_later_revision_does_not_run_again_over_what_it_made(upgraded: URL, stamped: str) -> None:
    """What it makes is nobody else's: where that is there already, somebody has to look."""
    assert run("stamp", stamped, url=upgraded).status == 0
    before = dump(upgraded)
    said = "Our tables are here" if stamped == "base" else "already exists"
    assert said in run("upgrade", "head", url=upgraded).error
    assert dump(upgraded) == before


@pytest.mark.server
def test_create_all_builds_what_the_revisions_build(new_database: Callable[..., URL]) -> None:
    created, upgraded = new_database(), new_database()
    metadata.create_all(create_engine(created, poolclass=NullPool))
    assert run("-x", "demo=no", "upgrade", "head", url=upgraded).status == 0
    execute(upgraded, "DROP TABLE oblivion.alembic_version")
    assert dump(created) == dump(upgraded)


def test_percent_sign_and_colon_in_a_view_are_what_they_are(empty: URL, tmp_path: Path) -> None:
    class Columns(TypedColumns):
        found: Named[bool] = Column(Boolean)

    other = MetaData()
    file = tmp_path / "public.odd.sql"
    file.write_text(
        "CREATE VIEW public.odd AS\nSELECT 'a:b' LIKE '%:b' AND '50%' = '50%' AS found;\n\n"
        "COMMENT ON VIEW public.odd IS '50% of it: odd';\n"
    )
    view(file, other, Columns, reads=[])
    other.create_all(create_engine(empty, poolclass=NullPool))
    assert query(empty, "SELECT found, obj_description('odd'::regclass) FROM odd") == [(True, "50% of it: odd")]


@pytest.mark.server
def test_create_all_runs_again_and_drop_all_leaves_nothing_in_public(empty: URL) -> None:
    engine = create_engine(empty, poolclass=NullPool)
    metadata.create_all(engine)
    created = dump(empty)
    metadata.create_all(engine)
    assert dump(empty) == created
    metadata.drop_all(engine)
    assert re.findall(r"^CREATE (?!SCHEMA oblivion;).*", dump(empty), flags=re.MULTILINE) == []


ROWS = {
    "001": "INSERT INTO call_sessions (room_id, mode) VALUES ('r', 'video')",
    "002": "INSERT INTO user_presence (host_id, room_id) VALUES ('h', 'r')",
    "003": "INSERT INTO user_accounts (user_id) VALUES ('u')",
    "003-usage": "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
    " VALUES ('demo_user', 's', 1, 'voice', false)",
    "003-demo": "UPDATE user_accounts SET tokens_remaining = 499 WHERE user_id = 'demo_user'",
    "003-rates": "INSERT INTO token_rates VALUES ('voice', false, now(), 5)",
    "004": "UPDATE user_accounts SET tokens_remaining = 499 WHERE user_id = 'demo_user'",
    "004-call": "SELECT start_call('demo_user', 'r', 'video')",
    "004-incident": "INSERT INTO oblivion.billing_incidents (session_id, action, error_code, message)"
    " VALUES (gen_random_uuid(), 'end', '55P03', 'm')",
}


# Roll-ups say nothing that their rows do not.
NOTHING_TO_LOSE = {"005"}


def test_every_revision_has_rows_to_lose() -> None:
    undecided = sorted({name[:3] for name in ROWS} ^ (set(REVISIONS) - NOTHING_TO_LOSE))
    assert not undecided, (
        f"write into ROWS of tests/test_revisions.py what the downgrade of {undecided} would lose, as a statement;"
        " or the number into NOTHING_TO_LOSE, if it drops no row and no value"
    )


@pytest.mark.parametrize("offline", [False, True], ids=["online", "script"])
@pytest.mark.parametrize("case", ROWS)
@pytest.mark.few(case=(0, 3, 7), offline="False")
def test_downgrade_refuses_to_drop_rows_unless_told(upgraded: URL, case: str, *, offline: bool) -> None:
    revision = case[:3]
    below = STAGES[STAGES.index(revision) - 1]
    if revision != REVISIONS[-1]:
        move(upgraded, REVISIONS[-1], revision, offline=False)
    execute(upgraded, ROWS[case])
    before = dump(upgraded)
    if offline:
        with pytest.raises(subprocess.CalledProcessError):
            move(upgraded, revision, below, offline=True)
    else:
        error = run("downgrade", below, url=upgraded).error
        assert re.search(r"(public|oblivion)\.\w+ holds (rows|values).*-x drop-data=yes", error), error
    assert dump(upgraded) == before
    move(upgraded, revision, below, "-x", "drop-data=yes", offline=offline)


def test_demo_accounts_are_left_out_when_told(empty: URL) -> None:
    assert run("-x", "demo=no", "upgrade", "head", url=empty).status == 0
    assert query(empty, "SELECT * FROM user_accounts") == []
    assert len(query(empty, "SELECT * FROM token_rates")) == 4


@pytest.mark.full
def test_autogenerated_revision_gets_the_next_number(upgraded: URL, tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "alembic", tmp_path / "alembic")
    shutil.copy(PROJECT / "alembic.ini", tmp_path)
    result = run("-c", str(tmp_path / "alembic.ini"), "revision", "--autogenerate", "-m", "add feature", url=upgraded)
    assert result.status == 0, result
    number = f"{int(REVISIONS[-1]) + 1:03}"
    text = (tmp_path / "alembic" / "versions" / f"{number}_add_feature.py").read_text()
    assert f'revision = "{number}"' in text
    assert f'down_revision = "{REVISIONS[-1]}"' in text
    assert re.search(r"^Why:\nLocks:$", text, flags=re.MULTILINE)


def test_plain_revision_gets_the_next_number_without_a_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oblivion_schema.server.embedded.is_installed", lambda: False)
    shutil.copytree(PROJECT / "alembic", tmp_path / "alembic")
    shutil.copy(PROJECT / "alembic.ini", tmp_path)
    ini = str(tmp_path / "alembic.ini")
    assert run("-c", ini, "revision", "--rev-id", "by_hand", "-m", "one").status == 0
    assert run("-c", ini, "revision", "-m", "two").status == 0
    number = int(REVISIONS[-1]) + 1
    new = sorted(path.name for path in (tmp_path / "alembic" / "versions").glob("*.py"))[len(REVISIONS) :]
    assert new == [f"{number:03}_two.py", "by_hand_one.py"]


@pytest.mark.parametrize("message", ["", " ", 'quotes """', "back\\slash"])
def test_message_that_would_make_no_valid_revision_is_refused(tmp_path: Path, message: str) -> None:
    shutil.copytree(PROJECT / "alembic", tmp_path / "alembic")
    shutil.copy(PROJECT / "alembic.ini", tmp_path)
    before = sorted(tmp_path.rglob("*.py"))
    error = run("-c", str(tmp_path / "alembic.ini"), "revision", "-m", message).error
    assert "A revision needs a message" in error
    assert sorted(tmp_path.rglob("*.py")) == before


def test_check_sees_a_missing_column_and_a_missing_index(upgraded: URL) -> None:
    assert run("check", url=upgraded).status == 0
    execute(upgraded, "ALTER TABLE user_accounts DROP COLUMN email")
    error = run("check", url=upgraded).error
    assert "column public.user_accounts.email is missing" in error
    assert "index public.idx_user_accounts_email on public.user_accounts is missing" in error


def test_check_and_autogenerate_leave_other_applications_tables_alone(upgraded: URL) -> None:
    execute(upgraded, "CREATE TABLE alembic_version (version_num text); CREATE TABLE theirs (id integer)")
    assert run("check", url=upgraded).status == 0


def test_check_is_clean_whatever_the_search_path_is(upgraded: URL) -> None:
    execute(upgraded, f"CREATE SCHEMA foo; ALTER DATABASE {upgraded.database} SET search_path = foo")
    assert run("check", url=upgraded).status == 0


def test_stamp_base_keeps_the_version_table(upgraded: URL) -> None:
    assert run("stamp", "base", url=upgraded).status == 0
    assert query(upgraded, "SELECT * FROM oblivion.alembic_version") == []


def test_revisions_are_numbered_in_sequence() -> None:
    assert [f"{number:03}" for number in range(1, len(REVISIONS) + 1)] == REVISIONS
    files = sorted(path.name[:4] for path in (PROJECT / "alembic" / "versions").glob("*.py"))
    assert files == [f"{revision}_" for revision in REVISIONS]


def test_revisions_import_nothing_that_can_change() -> None:
    for path in (PROJECT / "alembic" / "versions").glob("*.py"):
        imported = set(re.findall(r"^(?:from|import) ([\w.]+)", path.read_text(), flags=re.MULTILINE))
        assert imported <= {
            "alembic",
            "pathlib",
            "sqlalchemy",
            "oblivion_schema.operations",
            "oblivion_schema.operations.adoption",
            "oblivion_schema.operations.files",
        }, path.name
