"""The revisions as SQL files: they end where Alembic does, whoever sends them, and the two go on from each other."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg2
import pytest
from alembic.script import ScriptDirectory
from conftest import SORTS
from legacy_states import STATES, State
from pushing import Project, SupabaseCLI, by_tcp
from sqlalchemy import NullPool, create_engine, text
from support import PROJECT, dump, execute, libpq, program, query, run, wait_until

from oblivion_schema.deploy import upgrade as migrate
from oblivion_schema.deploy.export import statements
from oblivion_schema.deploy.turns import ADVISORY_LOCK

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.script import Script
    from sqlalchemy import URL

FOLDER: Final = PROJECT / "supabase" / "migrations"
FILES: Final = sorted(FOLDER.glob("*.sql"))
SCRIPTS: Final[list[Script]] = list(ScriptDirectory.from_config(migrate.config()).walk_revisions())[::-1]
HEAD: Final = SCRIPTS[-1].revision
NOTHING_TO_DO: Final = "is applied already: nothing to do."


# -- What is in the files


def test_committed_files_are_what_export_writes(tmp_path: Path) -> None:
    written = run("export", str(tmp_path / "first"))
    assert (written.status, written.err) == (0, "")
    again = subprocess.run(
        [sys.executable, "-m", "oblivion_schema", "export", tmp_path / "second"], check=True, capture_output=True
    )
    assert len(again.stdout.splitlines()) == len(SCRIPTS)
    committed = {path.name: path.read_bytes() for path in FOLDER.iterdir()}
    for folder in ("first", "second"):
        fresh = {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()}
        assert fresh == committed, "run: oblivion-schema export supabase/migrations"


def test_names_are_such_as_supabase_applies_and_never_change() -> None:
    names = [path.name for path in FILES]
    assert all(re.fullmatch(r"[0-9]{14}_[0-9]{3,}_\w+\.sql", name) for name in names)
    assert names[:4] == [
        "20260101000001_001_call_sessions.sql",
        "20260101000002_002_user_presence.sql",
        "20260101000003_003_token_billing.sql",
        "20260101000004_004_token_engine.sql",
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_is_one_statement_and_nothing_that_some_way_cannot_take(path: Path) -> None:
    content = path.read_text(encoding="utf-8")
    comment, tag, rest = content.partition("DO $revision$\n")
    assert all(line.startswith("--") for line in comment.strip().splitlines())
    for asked in ("Why", "Locks"):
        assert f"\n-- {asked}: " in comment, f"say it in the docstring of revision {path.stem[15:]}: {asked}: ..."
    assert (tag, rest.count("$revision$"), rest[-12:]) == ("DO $revision$\n", 1, "$revision$;\n")
    for never in (
        r"^\s*(BEGIN|START TRANSACTION|COMMIT|ROLLBACK|ABORT)\b.*;",
        r"^\s*\\",  # psql's
        r"\bCONCURRENTLY\b",
        r"\bCOPY\b.*\bstdin\b",
        r"\bSET\s+(LOCAL\s+|SESSION\s+)?(ROLE|SESSION AUTHORIZATION)\b",
        r"\bRESET\s+ROLE\b",
    ):
        assert not re.search(never, content, flags=re.MULTILINE | re.IGNORECASE), never


# What squawk says of the statements, by its rule and the line, and why they stay as they are.
DEADLINE: Final = "How long an upgrade may take is for its deployer to say; for a lock it waits 5 seconds."
TYPE: Final = "Clients know the column by this type, and no balance, call or price comes near its end; ids are uuid."
OF_ONE_CALL: Final = "It is of one call, which cannot cost a million tokens, and would last 68 years to reach its end."
IN_ONE: Final = "An upgrade is one transaction, which holds the table anyway; on big ones `prepare` builds it before."
REPLACED: Final = "What takes its place in the same transaction takes the same calls."
ANSWERS: Final = {
    ("require-statement-timeout", "*"): DEADLINE,
    ("prefer-bigint-over-int", "tokens_remaining integer DEFAULT 100 NOT NULL,"): TYPE,
    ("prefer-bigint-over-int", "tokens_used integer NOT NULL,"): TYPE,
    ("prefer-bigint-over-int", "duration_seconds integer,"): TYPE,
    ("prefer-bigint-over-int", "tokens_per_minute integer NOT NULL,"): TYPE,
    ("prefer-bigint-over-int", "tokens integer NOT NULL,"): TYPE,
    ("prefer-bigint-over-int", "balance integer NOT NULL,"): TYPE,
    ("prefer-bigint-over-int", "direct_rate integer NOT NULL,"): TYPE,
    ("prefer-bigint-over-int", "turn_rate integer NOT NULL,"): TYPE,
    ("prefer-bigint-over-int", "shortfall integer NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "shortfall integer DEFAULT 0 NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "refunded integer DEFAULT 0 NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "cost integer DEFAULT 0 NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "cost_before integer DEFAULT 0 NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "segment integer DEFAULT 1 NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "number integer NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "first_minute integer DEFAULT 0 NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "first_minute integer NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "minutes integer NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "first_second integer DEFAULT 0 NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "seconds integer NOT NULL,"): OF_ONE_CALL,
    ("prefer-bigint-over-int", "attempts integer DEFAULT 1 NOT NULL,"): OF_ONE_CALL,
    (
        "require-concurrent-index-creation",
        "CREATE INDEX IF NOT EXISTS idx_token_usage_session ON public.token_usage USING hash (session_id);",
    ): IN_ONE,
    ("require-concurrent-index-deletion", "DROP INDEX public.idx_token_usage_billing;"): IN_ONE,
    ("require-concurrent-index-deletion", "DROP INDEX public.idx_token_usage_session_id;"): IN_ONE,
    ("ban-drop-function", "DROP FUNCTION public.host_presence(text);"): REPLACED,
    ("ban-drop-function", "DROP FUNCTION oblivion.host_presence(text);"): REPLACED,
}


def test_linter_finds_nothing_that_is_not_answered_for(tmp_path: Path) -> None:
    """Squawk sees nothing in a DO block: it reads the statements that are in it, and in the files what is around."""
    linted = list(FILES)
    for script in SCRIPTS:
        linted.append(tmp_path / f"{script.revision}.sql")
        linted[-1].write_text(";\n".join(["SET lock_timeout = '5s'", *statements(script), ""]), encoding="utf-8")
    found = {
        (finding["rule_name"], Path(finding["file"]).read_text(encoding="utf-8").splitlines()[finding["line"]].strip())
        for finding in findings(*linted)
    }
    found = {(rule, "*" if (rule, "*") in ANSWERS else line) for rule, line in found}
    assert sorted(found - ANSWERS.keys()) == [], "mend it, or answer for it above"
    assert sorted(ANSWERS.keys() - found) == [], "nobody asks that any more"


def test_linter_is_heard(tmp_path: Path) -> None:
    script = tmp_path / "001.sql"
    script.write_text("ALTER TABLE token_usage ADD COLUMN note text NOT NULL;", encoding="utf-8")
    assert "adding-required-field" in {finding["rule_name"] for finding in findings(script)}


def findings(*paths: Path) -> list[dict[str, Any]]:
    squawk = Path(sysconfig.get_path("scripts")) / "squawk"
    ended = subprocess.run(
        [squawk, "--reporter=json", "--assume-in-transaction", "--pg-version=15", *paths],
        cwd=paths[-1].parent,  # where no configuration of the machine's is found
        capture_output=True,
        text=True,
        check=False,
    )
    found: list[dict[str, Any]] = json.loads(ended.stdout)
    assert (ended.returncode, ended.stderr) == (int(bool(found)), "")
    return found


# -- export


def test_export_overwrites_its_own_and_deletes_nothing(tmp_path: Path) -> None:
    (tmp_path / "20250101000000_theirs.sql").write_text("SELECT 1")
    assert run("export", str(tmp_path)).status == 0
    stale = tmp_path / FILES[0].name
    stale.write_bytes(FILES[0].read_bytes() + b"-- stale")
    result = run("export", str(tmp_path))
    assert result.out.splitlines() == [str(tmp_path / path.name) for path in FILES]
    assert stale.read_bytes() == FILES[0].read_bytes()
    assert (tmp_path / "20250101000000_theirs.sql").read_text() == "SELECT 1"


@pytest.mark.parametrize("name", ["20260101000002_002_user_presence.sql", "20260101000002_theirs.sql"])
def test_export_writes_nothing_where_another_file_has_one_of_its_numbers(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / name
    theirs.write_text("SELECT 1")
    error = run("export", str(tmp_path)).error
    assert f"{theirs} has the number of 20260101000002_002_user_presence.sql, and was not exported" in error
    assert "move it away, or name another folder. Nothing was written." in error
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert theirs.read_text() == "SELECT 1"


@pytest.mark.user
def test_export_says_where_it_cannot_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "Name a folder that you may write to." in run("export", str(tmp_path / "file")).error
    assert "Name a folder that you may write to." in run("export", str(tmp_path / "file" / "in it")).error


def test_export_needs_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oblivion_schema.server.embedded.is_installed", lambda: False)
    assert run("export", str(tmp_path)).status == 0


def test_export_checks_the_options_as_every_command_does(tmp_path: Path) -> None:
    assert "-x demo=maybe: say demo=yes or demo=no." in run("-x", "demo=maybe", "export", str(tmp_path / "x")).error
    assert not (tmp_path / "x").exists()


REVISION = '''"""Whatever a revision may run.

Why: a test.
Locks: {{nothing}} of 100 %
"""

import sqlalchemy as sa
from alembic import op
from oblivion_schema.operations import run_sql

revision = "{revision}"
down_revision = "{before}"


def upgrade():
    run_sql("ALTER TABLE token_rates ADD COLUMN \\"100 %\\" text DEFAULT 'a:b; $revision$ %(x)s'")
    op.add_column("token_rates", sa.Column("note", sa.Text, server_default="x;\\n\\ny", comment="50 % of it"))
    types = {{"mode": sa.Text, "used_turn": sa.Boolean, "tokens_per_minute": sa.Integer}}
    rows = [{{"mode": "voice", "used_turn": turn, "tokens_per_minute": 100}} for turn in (False, True)]
    op.bulk_insert(sa.table("token_rates", *(sa.column(*column) for column in types.items())), rows)
    run_sql("""
    -- A comment; and a query.
    SELECT set_config('oblivion.told', $$it's$$, true)
    """)
    run_sql("CREATE TABLE copied AS SELECT mode, used_turn FROM token_rates")
    run_sql("WITH one AS (SELECT true AS turn) UPDATE token_rates SET note = 'y' FROM one WHERE turn = used_turn")
    run_sql("UPDATE token_rates SET note = note || current_setting('oblivion.told') RETURNING note")
    run_sql("VALUES (1)")
    run_sql("""
    CREATE FUNCTION several() RETURNS void LANGUAGE sql BEGIN ATOMIC
      SELECT CASE WHEN true THEN 1 END;
      DELETE FROM public.token_rates WHERE mode = 'none';
    END
    """)
    run_sql("CREATE FUNCTION _callers() RETURNS integer LANGUAGE sql RETURN 1")
    run_sql("CREATE FUNCTION quoting() RETURNS text LANGUAGE sql AS $statement$ SELECT '$$; $revision$' $statement$")
    run_sql("DO $$ DECLARE mode text; BEGIN mode = 'x'; SELECT token_rates.mode INTO mode FROM token_rates; END $$")
'''


@pytest.mark.server
def test_any_statement_of_a_revision_does_what_it_does_by_alembic(new_sort: Callable[..., URL], tmp_path: Path) -> None:
    shutil.copytree(PROJECT / "alembic", tmp_path / "alembic", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "alembic.ini", tmp_path)
    here = ("-c", str(tmp_path / "alembic.ini"))
    number = f"{int(HEAD) + 1:03}"
    path = tmp_path / "alembic" / "versions" / f"{number}_whatever.py"
    path.write_text(REVISION.format(revision=number, before=HEAD), encoding="utf-8")
    assert run(*here, "export", str(tmp_path / "sql")).status == 0
    alembic, files = new_sort(), new_sort()
    assert run(*here, "upgrade", "head", url=alembic).status == 0
    by_simple_query(files, sorted((tmp_path / "sql").iterdir()))
    assert dump(files) == dump(alembic)

    for out_of_turn in ("fix", "000"):
        path.unlink()  # of the same size and second, it would be taken for the one that was compiled before
        path = path.with_name(f"{out_of_turn}_whatever.py")
        path.write_text(REVISION.format(revision=out_of_turn, before=HEAD), encoding="utf-8")
        error = run(*here, "export", str(tmp_path / "other")).error
        assert f"Revision {out_of_turn} does not have the next number" in error
        assert not (tmp_path / "other").exists()


# -- Where they end


def by_psql(url: URL, files: Sequence[Path]) -> str:
    """File by file, each statement a transaction."""
    return "".join(psql(url, "-f", str(path)) for path in files)


def by_psql_at_once(url: URL, files: Sequence[Path]) -> str:
    """All files, one transaction."""
    return psql(url, "-1", *(f"-f{path}" for path in files))


def by_simple_query(url: URL, files: Sequence[Path]) -> str:
    """As a dashboard does, a file as one string."""
    connection = psycopg2.connect(libpq(url))
    connection.autocommit = True
    try:
        for path in files:
            connection.cursor().execute(path.read_text(encoding="utf-8"))
        return "".join(connection.notices)
    finally:
        connection.close()


WAYS: Final = (by_psql, by_psql_at_once, by_simple_query)
Way = Callable[["URL", "Sequence[Path]"], str]


class RefusedError(Exception):
    """What psql said."""


def psql(url: URL, *arguments: str) -> str:
    command = [str(program("psql")), "-Xq", "-v", "ON_ERROR_STOP=1", *arguments, libpq(url)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RefusedError(ended.stderr)
    assert ended.stdout == ""
    return ended.stderr


def state(url: URL) -> str:
    """What is in a database, whatever its owner's name."""
    return dump(url).replace(str(url.username), "<owner>")


@pytest.fixture(scope="session")
def state_of() -> Callable[[URL], str]:
    """The state of a template, which nothing changes."""
    return functools.cache(state)


@pytest.fixture(scope="session")
def by_alembic(templates: Callable[..., URL], state_of: Callable[[URL], str]) -> Callable[..., str]:
    """The state of a database of one of the sorts after Alembic's upgrade, with what it is told."""
    return lambda sort, *options: state_of(templates(sort, upgrade, *options, "upgrade", "head"))


def upgrade(url: URL, *arguments: str) -> str:
    """The state after Alembic's upgrade."""
    result = run(*(arguments or ("upgrade", "head")), url=url)
    assert result.status == 0, result
    return state(url)


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.server
def test_every_way_ends_where_alembic_does(
    new_sort: Callable[..., URL], by_alembic: Callable[..., str], sort: str
) -> None:
    expected = by_alembic(sort)
    for way in WAYS:
        url = new_sort(sort)
        assert way(url, FILES) == "", "something to read where nothing is to say"
        assert state(url) == expected, way.__doc__
        assert way(url, FILES).count(NOTHING_TO_DO) == len(FILES)
        assert state(url) == expected, f"{way.__doc__} Again."
    assert f"{HEAD} (head)" in run("current", url=url).out
    assert run("check", url=url).status == 0


@pytest.fixture(params=STATES, ids=str)
def legacy(request: pytest.FixtureRequest) -> State:
    """A state of databases that somebody made by hand, with rows, and with additions, on Supabase."""
    its: State = request.param
    return its


@pytest.fixture
def adopted(adopted_state: Callable[[str, State], URL], state_of: Callable[[URL], str], legacy: State) -> str:
    """The state of such a database after Alembic's upgrade."""
    return state_of(adopted_state("supabase-old", legacy))


@pytest.fixture
def by_hand(
    new_sort: Callable[..., URL], state_by_hand: Callable[[str, State], URL], legacy: State
) -> Callable[[], URL]:
    """Make one."""
    return lambda: new_sort(copy_of=state_by_hand("supabase-old", legacy))


@pytest.mark.few(legacy="presence fixed and safe, billing")
@pytest.mark.server
def test_every_way_adopts_what_was_made_by_hand_as_alembic_does(by_hand: Callable[[], URL], adopted: str) -> None:
    for way in WAYS:
        url = by_hand()
        way(url, FILES)
        assert state(url) == adopted, way.__doc__
    way(url, FILES)
    assert state(url) == adopted, "the second time"


@pytest.mark.parametrize("options", [["demo=no"], ["access=authenticated"], ["demo=no", "access=open"]], ids=str)
@pytest.mark.few(options=1)
def test_options_are_in_the_files(
    new_sort: Callable[..., URL], by_alembic: Callable[..., str], tmp_path: Path, options: list[str]
) -> None:
    given = [word for option in options for word in ("-x", option)]
    assert run(*given, "export", str(tmp_path)).status == 0
    files = sorted(tmp_path.iterdir())
    for path in files:
        assert set(options) <= set(path.read_text(encoding="utf-8").splitlines()[1].split())
    expected = by_alembic("supabase-new", *given)
    for way in WAYS:
        url = new_sort("supabase-new")
        way(url, files)
        assert state(url) == expected


# -- Beside Alembic, and beside each other


@pytest.mark.parametrize("done", range(len(FILES)))
@pytest.mark.few(done=3)
def test_alembic_and_the_files_go_on_from_each_other(new_sort: Callable[..., URL], done: int) -> None:
    files_first, alembic_first = new_sort("owner"), new_sort("owner")
    by_psql(files_first, FILES[:done])
    if done:
        upgrade(alembic_first, "upgrade", SCRIPTS[done - 1].revision)
    assert state(files_first) == state(alembic_first)
    expected = upgrade(files_first)
    assert by_psql(alembic_first, FILES).count(NOTHING_TO_DO) == done
    assert state(alembic_first) == expected


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("done", [0, 1])
@pytest.mark.few(way=0)
def test_file_whose_turn_has_not_come_refuses(empty: URL, way: Way, done: int) -> None:
    by_psql(empty, FILES[:done])
    before = dump(empty)
    with pytest.raises((RefusedError, psycopg2.Error)) as refused:
        way(empty, FILES[done + 1 :])
    assert f"Revision {SCRIPTS[done + 1].revision} comes after {SCRIPTS[done].revision}" in str(refused.value)
    assert "HINT:  Apply " in str(refused.value)
    assert dump(empty) == before


@pytest.mark.full
def test_files_keep_the_access_mode_that_a_database_is_in(
    new_sort: Callable[..., URL], by_alembic: Callable[..., str], tmp_path: Path
) -> None:
    assert run("-x", "access=authenticated", "export", str(tmp_path)).status == 0
    closed, closed_at_first = new_sort("supabase-old"), new_sort("supabase-old")
    expected = by_alembic("supabase-old", "-x", "access=authenticated")
    upgrade(closed, "-x", "access=authenticated", "upgrade", "head")
    by_psql(closed, FILES)
    assert state(closed) == expected
    by_psql(closed_at_first, [tmp_path / FILES[0].name, *FILES[1:]])
    assert state(closed_at_first) == expected


def test_files_for_an_access_mode_refuse_where_it_would_not_hold(
    new_sort: Callable[..., URL], server: URL, tmp_path: Path
) -> None:
    assert run("-x", "access=authenticated", "export", str(tmp_path)).status == 0
    url = new_sort("supabase-old")
    execute(url, STATES[1].script())
    somebody = f"{url.database}_somebody"
    execute(
        server.set(database=url.database),
        f"CREATE ROLE {somebody}; GRANT SELECT ON call_sessions TO {somebody} WITH GRANT OPTION;"
        f" SET LOCAL ROLE {somebody}; GRANT SELECT ON call_sessions TO anon",
    )
    try:
        with pytest.raises(RefusedError, match=f"mode would not hold: {somebody} granted SELECT on call_sessions"):
            by_psql(url, sorted(tmp_path.iterdir()))
        assert SCRIPTS[-2].revision in run("current", url=url).out
    finally:
        execute(server.set(database=url.database), f"DROP OWNED BY {somebody} CASCADE; DROP ROLE {somebody}")


MODES = [
    ("access", "open", "authenticated"),
    ("access", "authenticated", "open"),
    ("pages", "trusted", "metered"),
    ("pages", "metered", "trusted"),
]


@pytest.mark.parametrize(("option", "mode", "other"), MODES)
@pytest.mark.few(mode=["authenticated", "metered"])
def test_files_for_one_mode_refuse_a_database_in_the_other(
    upgraded: URL, tmp_path: Path, option: str, mode: str, other: str
) -> None:
    assert run("-x", f"{option}={mode}", "export", str(tmp_path)).status == 0
    files = sorted(tmp_path.iterdir())
    assert run(option, mode, url=upgraded).status == 0
    assert by_psql(upgraded, files).count(NOTHING_TO_DO) == len(files)
    assert run(option, other, url=upgraded).status == 0
    for path in files:
        with pytest.raises(RefusedError, match=f"has {option} {other}, and this file was exported for {mode}\n"):
            by_psql(upgraded, [path])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.few(way=1)
@pytest.mark.server
def test_file_cut_off_in_the_middle_leaves_nothing(empty: URL, tmp_path: Path, way: Way) -> None:
    """The server's process ends when all is done but the last line."""
    by_psql(empty, FILES[:-1])
    before = dump(empty)
    content = FILES[-1].read_text(encoding="utf-8")
    last = content.rindex(f"  UPDATE oblivion.alembic_version SET version_num = '{HEAD}'")
    killed = tmp_path / "killed.sql"
    killed.write_text(f"{content[:last]}PERFORM pg_terminate_backend(pg_backend_pid());\n{content[last:]}")
    with pytest.raises((RefusedError, psycopg2.Error), match="terminating connection"):
        way(empty, [killed])
    assert dump(empty) == before
    way(empty, FILES)
    assert f"{HEAD} (head)" in run("current", url=empty).out


def test_file_stops_at_a_table_that_is_held(upgraded: URL, tmp_path: Path) -> None:
    assert all("set_config('lock_timeout', '5s', true)" in path.read_text() for path in FILES)
    assert run("-x", "lock-timeout=50ms", "export", str(tmp_path)).status == 0
    assert run("stamp", SCRIPTS[1].revision, url=upgraded).status == 0
    before = dump(upgraded)
    with create_engine(upgraded, poolclass=NullPool).begin() as holder:
        holder.execute(text("LOCK TABLE token_usage"))
        with pytest.raises(psycopg2.errors.LockNotAvailable):
            by_simple_query(upgraded, [tmp_path / FILES[2].name])
    assert dump(upgraded) == before


def test_deployers_of_all_ways_take_turns(new_sort: Callable[..., URL], by_alembic: Callable[..., str]) -> None:
    expected, url = by_alembic("superuser"), new_sort()
    with create_engine(url, poolclass=NullPool).begin() as holder:
        holder.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
        with ThreadPoolExecutor(5) as threads:
            ends = [threads.submit(way, url, FILES) for way in (*WAYS, by_psql)]
            ends.append(threads.submit(lambda _: upgrade(url), None))
            waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%advisory%'"
            wait_until(lambda: len(query(url, f"{waiting} AND pid <> pg_backend_pid()")) >= len(ends))
            holder.rollback()
            for end in ends:
                end.result(timeout=30)
    assert state(url) == expected


def test_what_follows_in_the_transaction_finds_its_settings_as_they_were(empty: URL, tmp_path: Path) -> None:
    given = ["-x", "demo=no", "-x", "access=authenticated"]
    assert run(*given, "export", str(tmp_path)).status == 0
    names = "lock_timeout", "search_path", "client_min_messages", "oblivion.demo", "oblivion.access"
    settings = f"SELECT {', '.join(f'current_setting({name!r}, true)' for name in names)}"
    with create_engine(empty, poolclass=NullPool).connect() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '1234ms'"))
        connection.execute(text('SET LOCAL search_path = pg_temp, "$user"'))
        for path in (*sorted(tmp_path.iterdir()), *FILES):
            connection.exec_driver_sql(path.read_text(), execution_options={"no_parameters": True})
            assert connection.execute(text(settings)).one() == ("1234ms", 'pg_temp, "$user"', "notice", "", "")


# -- By the real CLI


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> SupabaseCLI:
    """The CLI, in a home of its own."""
    return SupabaseCLI.at_home_in(tmp_path_factory.mktemp("home"))


@pytest.fixture
def project(cli: SupabaseCLI, tmp_path: Path) -> Project:
    """A project of the CLI's that holds the files."""
    project = Project(cli, tmp_path)
    project.hold(FILES)
    return project


HISTORY = "SELECT version, name FROM supabase_migrations.schema_migrations ORDER BY version"
PUSHED: Final = [tuple(path.stem.split("_", 1)) for path in FILES]


def without_history(url: URL) -> str:
    """The state but for the CLI's own history."""
    execute(url, "DROP SCHEMA supabase_migrations CASCADE")
    return state(url)


@pytest.mark.parametrize("sort", SORTS)
def test_push_ends_where_alembic_does(
    new_sort: Callable[..., URL], by_alembic: Callable[..., str], sort: str, project: Project
) -> None:
    expected, url = by_alembic(sort), new_sort(sort)
    with by_tcp(url) as target:
        pushed = project.push(target)
        assert (pushed.status, pushed.err.count("Applying migration")) == (0, len(FILES)), pushed
    assert query(url, HISTORY) == PUSHED
    assert f"{HEAD} (head)" in run("current", url=url).out
    assert without_history(url) == expected


@pytest.mark.full
def test_push_adopts_what_was_made_by_hand_as_alembic_does(
    by_hand: Callable[[], URL], adopted: str, project: Project
) -> None:
    url = by_hand()
    with by_tcp(url) as target:
        pushed = project.push(target)
    assert pushed.status == 0, pushed
    assert without_history(url) == adopted


@pytest.mark.full
def test_push_after_alembic_changes_nothing_and_both_histories_agree(
    upgraded_sort: Callable[..., URL], by_alembic: Callable[..., str], project: Project
) -> None:
    url, expected = upgraded_sort("supabase-new"), by_alembic("supabase-new")
    with by_tcp(url) as target:
        assert project.push(target).status == 0
        assert query(url, HISTORY) == PUSHED
        assert "up to date" in project.push(target).out
    assert without_history(url) == expected


@pytest.mark.full
def test_push_that_fails_leaves_the_files_before_and_goes_on_from_there(
    new_sort: Callable[..., URL], project: Project
) -> None:
    stopped, url = new_sort("supabase-new"), new_sort("supabase-new")
    broken = project.migrations / FILES[-1].name
    content = broken.read_text(encoding="utf-8")
    last = content.rindex("  UPDATE oblivion.alembic_version")
    broken.write_text(f"{content[:last]}  PERFORM 1 / 0;\n{content[last:]}", encoding="utf-8")
    with by_tcp(url) as target:
        failed = project.push(target)
        assert failed.status == 1
        assert "division by zero" in failed.err + failed.out
        assert query(url, HISTORY) == PUSHED[:-1]
        by_psql(stopped, FILES[:-1])
        before = without_history(url)
        assert before == state(stopped)
        project.hold(FILES)
        assert project.push(target).status == 0
    assert query(url, HISTORY) == PUSHED
    assert without_history(url) == upgrade(stopped)


@pytest.mark.full
def test_push_goes_on_after_a_downgrade_once_its_history_is_told(
    new_sort: Callable[..., URL], project: Project
) -> None:
    url = new_sort("supabase-new")
    with by_tcp(url) as target:
        assert project.push(target).status == 0
        assert run("downgrade", "-1", url=url).status == 0
        assert "up to date" in project.push(target).out
        repair = ("migration", "repair", PUSHED[-1][0], "--status", "reverted", "--yes", f"--remote={libpq(target)}")
        repaired = project.cli.run(*repair, folder=project.folder)
        assert repaired.status == 0, repaired
        assert project.push(target).err.count("Applying migration") == 1
    assert f"{HEAD} (head)" in run("current", url=url).out


@pytest.mark.full
def test_push_beside_later_migrations_of_a_projects_own_needs_include_all(
    new_sort: Callable[..., URL], project: Project
) -> None:
    url = new_sort("supabase-new")
    for path in project.migrations.iterdir():
        path.rename(project.folder / path.name)
    (project.migrations / "20270101000000_theirs.sql").write_text("CREATE TABLE theirs (id integer);")
    with by_tcp(url) as target:
        assert project.push(target).status == 0
        project.hold(FILES)
        refused = project.push(target)
        assert refused.status == 1
        assert "--include-all" in refused.err + refused.out
        assert project.push(target, "--include-all").status == 0
    assert f"{HEAD} (head)" in run("current", url=url).out
