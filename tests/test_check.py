"""`check` and `revision --autogenerate` as people run them: on whose database, beside whom, with which rights."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, NullPool, Table, Text, create_engine, event
from support import API_ROLES, PROJECT, declared, dump, execute, libpq, program, psql, query, run, spawn, temporary_home

from oblivion_schema import metadata
from oblivion_schema.declare.access import EVERYBODY, READ, REALTIME, grant, row_level_security
from oblivion_schema.declare.ddl import reference_rows
from oblivion_schema.declare.sql import add_to_publication, block, drop_from_publication
from oblivion_schema.drift.compare import Difference
from oblivion_schema.operations import literal, unindented
from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder of revisions that a test may add to."""
    shutil.copytree(PROJECT / "alembic", tmp_path / "alembic")
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    return tmp_path


TOGETHER = next(
    sql
    for sql in (PROJECT / "tests" / "mutations.sql").read_text(encoding="utf-8").split("-- add together: ")
    if sql.startswith("public.rooms\n")
).partition("\n")[2]


@pytest.mark.server
def test_check_is_clean_after_an_upgrade_and_revisions_written_here_work(database: URL, checkout: Path) -> None:
    """The whole round: a changed metadata, check, the revision, upgrade, check, and downgrade."""
    here = ("-c", str(checkout / "alembic.ini"))
    assert run(*here, "upgrade", "head", url=database).status == 0
    clean = run(*here, "check", url=database)
    assert (clean.status, clean.out) == (0, "No new upgrade operations detected.\n")
    before = dump(database)

    change = (
        "ALTER TABLE token_usage ALTER duration_seconds SET DEFAULT 0;"
        " DROP POLICY call_sessions_delete ON call_sessions"
    )
    with declared(TOGETHER.partition("\n-- add")[0], change):
        error = run(*here, "check", url=database).error
        assert "table public.rooms is missing" in error
        assert "default public.token_usage.duration_seconds is missing" in error
        assert "policy call_sessions_delete on public.call_sessions is not in the metadata" in error
        assert dump(database) == before
        assert run(*here, "revision", "--autogenerate", "-m", "rooms", url=database).status == 0
        assert dump(database) == before
        assert run(*here, "upgrade", "head", url=database).status == 0
        assert run(*here, "check", url=database).status == 0
        [path] = set((checkout / "alembic" / "versions").glob("*_rooms.py"))
        text = path.read_text()
        assert set(re.findall(r"^(?:from|import) ([\w.]+)", text, flags=re.MULTILINE)) == {
            "pathlib",
            "oblivion_schema.operations",
        }
        assert "Why:\nLocks:\n" in text

        execute(database, "CREATE POLICY rooms_insert ON rooms FOR INSERT WITH CHECK (true)")
        execute(database, "INSERT INTO rooms (room) VALUES ('r')")
        assert "public.rooms holds rows, which would be dropped" in run(*here, "downgrade", "-1", url=database).error
        execute(database, "DROP POLICY rooms_insert ON rooms; TRUNCATE rooms")
    assert run(*here, "downgrade", "-1", url=database).status == 0
    assert re.sub(r"'\d{3}'", "", dump(database)) == re.sub(r"'\d{3}'", "", before)

    for arguments in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *arguments, path], cwd=checkout, check=True)


@pytest.mark.full
def test_changed_digit_of_a_function_is_a_revision_of_that_digit(upgraded: URL, tmp_path: Path) -> None:
    """As a maintainer does it, in a checkout: edit the function's file, write the revision, read its diff, run it."""
    for name in ("alembic", "oblivion_schema"):
        shutil.copytree(PROJECT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("alembic.ini", "pyproject.toml", ".gitignore"):
        shutil.copy(PROJECT / name, tmp_path)
    source = "oblivion_schema/tables/metering/oblivion.explain_call.sql"
    frozen = (tmp_path / "alembic/versions/004_token_engine/oblivion.explain_call.sql").read_text()
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OBLIVION_DATABASE_URL": libpq(upgraded)}

    def do(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def alembic(*arguments: str) -> None:
        do(sys.executable, "-m", "alembic", *arguments)

    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    do(*git, "init", "-q")
    do(*git, "add", "-A")
    do(*git, "commit", "-q", "-m", "before")
    before = dump(upgraded)
    text = (tmp_path / source).read_text()
    assert text.count("s.first_minute + 1,") == 1
    changed = text.replace("s.first_minute + 1,", "s.first_minute + 2,")
    (tmp_path / source).write_text(changed)

    alembic("revision", "--autogenerate", "-m", "one digit")
    [folder] = (path for path in (tmp_path / "alembic" / "versions").glob("*_one_digit") if path.is_dir())
    files = {str(file.relative_to(folder)): file.read_text() for file in folder.rglob("*.sql")}
    new = changed.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)
    old = frozen.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1)
    assert files == {"oblivion.explain_call.sql": new, "down/oblivion.explain_call.sql": old}
    do(*git, "add", "-A")
    shown = do(*git, "diff", "--cached", "-C", "--find-copies-harder", "--numstat", "--", "alembic")
    counts = [line.split("\t") for line in shown.splitlines()]
    assert sum(int(added) for added, *_ in counts) <= 40, shown
    assert sum(int(removed) for _, removed, *_ in counts) <= 3, shown
    diff = do(*git, "diff", "--cached", "-C", "--find-copies-harder", "--", "alembic")
    assert "\n-    s.first_minute + 1,\n+    s.first_minute + 2,\n" in diff

    alembic("upgrade", "head")
    alembic("check")
    alembic("downgrade", "-1")
    assert dump(upgraded) == before


@pytest.mark.full
def test_source_that_makes_something_else_is_not_frozen(upgraded: URL, checkout: Path) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    with declared("ALTER FUNCTION oblivion.rate_card(text, boolean) COST 77"):
        assert run(*here, "revision", "--autogenerate", "-m", "cost", url=upgraded).status == 0
        [file] = (checkout / "alembic" / "versions").glob("*_cost/oblivion.rate_card.sql")
        assert "COST 77" in file.read_text()
        assert run(*here, "upgrade", "head", url=upgraded).status == 0
        assert run(*here, "check", url=upgraded).status == 0


def test_change_that_this_database_has_by_hand_is_not_left_out_of_a_revision(upgraded: URL, checkout: Path) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    change = "ALTER FUNCTION oblivion.rate_card(text, boolean) COST 77"
    execute(upgraded, change)
    with declared(change):
        assert run(*here, "check", url=upgraded).status == 0
        refused = run(*here, "revision", "--autogenerate", "-m", "cost", url=upgraded).error
    assert "function oblivion.rate_card(text,boolean): this database already is as the metadata says" in refused
    assert not list((checkout / "alembic" / "versions").glob("*_cost*"))


def test_revision_without_its_files_says_so(empty: URL, checkout: Path) -> None:
    shutil.rmtree(checkout / "alembic" / "versions" / "004_token_engine")
    error = run("-c", str(checkout / "alembic.ini"), "upgrade", "head", url=empty).error
    assert re.search(r"004_token_engine/\S+\.sql is missing, but its revision needs it: restore the file", error)


def test_downgrade_that_drops_a_column_refuses_to_lose_what_was_written(upgraded: URL, checkout: Path) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    with declared("ALTER TABLE user_accounts ADD note text, ADD level integer DEFAULT 1 NOT NULL"):
        assert run(*here, "revision", "--autogenerate", "-m", "note", url=upgraded).status == 0
    assert run(*here, "upgrade", "head", url=upgraded).status == 0
    for values in ("note = 'x'", "note = NULL, level = 2"):
        execute(upgraded, f"UPDATE user_accounts SET {values} WHERE user_id = 'demo_user'")
        error = run(*here, "downgrade", "-1", url=upgraded).error
        assert re.search(r"public.user_accounts holds values in (note|level), .*-x drop-data=yes", error), error
    assert run(*here, "-x", "drop-data=yes", "downgrade", "-1", url=upgraded).status == 0


@pytest.mark.full
@pytest.mark.server
def test_revision_of_several_heads_of_text_is_exact(upgraded: URL, checkout: Path) -> None:
    body = "\nBEGIN\n  -- 100 %, a:b, \"\"\", ''' and \\\\ \n\n\t  NEW.updated_at = now(); \n    \nRETURN NEW;\nEND\n"
    here = ("-c", str(checkout / "alembic.ini"))
    odd = f"CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql SET search_path = '' AS $odd${body}$odd$"
    with declared(odd):
        assert run(*here, "revision", "--autogenerate", "-m", "odd", url=upgraded).status == 0
        assert run(*here, "upgrade", "head", url=upgraded).status == 0
        assert run(*here, "check", url=upgraded).status == 0
    assert query(upgraded, "SELECT prosrc FROM pg_proc WHERE proname = 'odd'") == [(body,)]


def test_difference_of_long_functions_shows_the_changed_lines_alone() -> None:
    lines = [f"line {number}" for number in range(40)]
    metadata_lines = [*lines[:20], "new", *lines[21:]]
    difference = Difference("different", "function", "public.f()", "\n".join(metadata_lines), "\n".join(lines))
    assert difference.explained().splitlines() == [
        "function public.f() differs (- database, + metadata)",
        "  ...",
        *(f"    line {number}" for number in range(17, 20)),
        "  - line 20",
        "  + new",
        *(f"    line {number}" for number in range(21, 24)),
    ]


@pytest.mark.parametrize(
    "sql",
    ["SELECT 1", "a\nb", "a\n  b\n\n  c", " a\n b", "a \nb", "'''\"\"\"", "\\n", "a\\\nb", "a\n\tb", "a\n"],
)
def test_literal_of_a_statement_is_that_statement(sql: str) -> None:
    source = literal(sql)
    assert unindented(eval(f"(\n{source}\n)")) == sql
    indented = re.sub(r" +$", "", source.replace("\n", "\n    "), flags=re.MULTILINE)
    assert unindented(eval(f"(\n{indented}\n)")) == sql


FOREIGN = """
CREATE SCHEMA app;
CREATE TABLE app.theirs (id integer);
CREATE TABLE theirs (id integer PRIMARY KEY, account text REFERENCES user_accounts, CHECK (id > 0));
ALTER TABLE theirs ENABLE ROW LEVEL SECURITY;
CREATE POLICY theirs ON theirs USING (true);
CREATE INDEX theirs_account ON theirs (account);
CREATE VIEW their_view AS SELECT * FROM theirs;
CREATE MATERIALIZED VIEW their_matview AS SELECT 1 AS it;
CREATE FUNCTION their_function(integer) RETURNS integer LANGUAGE sql RETURN $1;
CREATE AGGREGATE their_sum(integer) (SFUNC = int4pl, STYPE = integer);
CREATE TYPE their_type AS ENUM ('a');
CREATE SEQUENCE their_sequence;
CREATE TABLE their_parts (id integer) PARTITION BY RANGE (id);
CREATE RULE their_rule AS ON INSERT TO theirs DO ALSO NOTHING;
INSERT INTO token_rates VALUES ('video', true, '2030-01-01', 9);
"""
NOT_OURS = (
    "aggregate public.their_sum(integer), materialized view public.their_matview, partitioned table public.their_parts,"
    " rule their_rule on public.theirs, sequence public.their_sequence, type public.their_type,"
    " function public.their_function(integer), table public.theirs, view public.their_view"
)


@pytest.mark.server
def test_what_is_not_ours_is_named_and_left_alone(
    upgraded: URL, checkout: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = f"other_{upgraded.database}"
    execute(upgraded, f"{FOREIGN}; CREATE ROLE {other}; GRANT ALL ON token_usage, daily_token_usage TO {other}")
    before = dump(upgraded)
    assert run("check", url=upgraded).status == 0
    assert caplog.messages[-1] == f"Not ours, left alone: {NOT_OURS}"
    here = ("-c", str(checkout / "alembic.ini"))
    with declared("ALTER TABLE user_accounts ADD note text"):
        assert run(*here, "revision", "--autogenerate", "-m", "note", url=upgraded).status == 0
        assert run(*here, "upgrade", "head", url=upgraded).status == 0
        assert run(*here, "check", url=upgraded).status == 0
    assert run(*here, "downgrade", "-1", url=upgraded).status == 0
    assert dump(upgraded) == before
    execute(upgraded, f"DROP OWNED BY {other}; DROP ROLE {other}")


def test_unknown_is_dropped_when_asked(upgraded: URL, checkout: Path) -> None:
    execute(upgraded, "CREATE TABLE theirs (id integer); CREATE VIEW their_view AS SELECT * FROM theirs")
    here = ("-c", str(checkout / "alembic.ini"), "-x", "drop-unknown=yes")
    before = dump(upgraded)
    assert "table public.theirs is in neither the metadata nor a revision" in run(*here, "check", url=upgraded).error
    assert run(*here, "revision", "--autogenerate", "-m", "tidy", url=upgraded).status == 0
    assert run(*here, "upgrade", "head", url=upgraded).status == 0
    assert query(upgraded, "SELECT to_regclass('theirs'), to_regclass('their_view')") == [(None, None)]
    assert run(*here, "check", url=upgraded).status == 0
    assert run(*here, "downgrade", "-1", url=upgraded).status == 0
    assert dump(upgraded) == before


ADDED_BY_HAND = (
    ("CREATE INDEX extra ON token_usage (mode)", "index public.extra on public.token_usage"),
    ("ALTER TABLE token_usage ADD extra text", "column public.token_usage.extra"),
    ("ALTER TABLE token_usage ADD CONSTRAINT extra CHECK (true)", "check constraint extra on public.token_usage"),
    ("CREATE POLICY extra ON token_usage USING (true)", "policy extra on public.token_usage"),
    ("CREATE TABLE oblivion.extra (id integer)", "table oblivion.extra"),
    ("CREATE TYPE oblivion.extra_type AS ENUM ('a')", "type oblivion.extra_type"),
    ("CREATE RULE extra AS ON DELETE TO token_usage DO INSTEAD NOTHING", "rule extra on public.token_usage"),
    ("ALTER VIEW active_calls ALTER mode SET DEFAULT 'x'", "default of view column public.active_calls.mode"),
    (
        "ALTER TABLE token_usage DISABLE TRIGGER ALL, ENABLE TRIGGER USER",
        "disabled triggers of fk_token_usage_user_id on public.token_usage",
    ),
    (
        "CREATE STATISTICS extra ON mode, used_turn FROM token_usage",
        "statistics object public.extra on public.token_usage",
    ),
    (
        "CREATE TABLE public.above (note text); ALTER TABLE token_usage ADD note text, INHERIT public.above",
        "inheritance of public.token_usage from public.above",
    ),
)


@pytest.mark.server
def test_what_was_added_to_ours_by_hand_is_seen_and_not_dropped(upgraded: URL, checkout: Path) -> None:
    """All of it at once, each of which is named."""
    for sql, _ in ADDED_BY_HAND:
        execute(upgraded, sql)
    before = dump(upgraded)
    here = ("-c", str(checkout / "alembic.ini"))
    error = run(*here, "check", url=upgraded).error
    for _, named in ADDED_BY_HAND:
        assert len(re.findall(f"{named}\\S* is in neither the metadata nor a revision", error)) == 1, (named, error)
    # The column comes with what is inherited.
    assert error.count(" is in neither the metadata nor a revision") == len(ADDED_BY_HAND) + 1, error
    assert run(*here, "revision", "--autogenerate", "-m", "nothing", url=upgraded).status == 0
    assert "run_sql" not in next((checkout / "alembic" / "versions").glob("*_nothing.py")).read_text()
    assert dump(upgraded) == before


@pytest.mark.full
def test_table_that_left_the_metadata_is_seen_and_dropped_only_when_asked(
    upgraded: URL, checkout: Path, caplog: pytest.LogCaptureFixture
) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    with declared("DROP TABLE user_presence CASCADE"):
        assert "table public.user_presence is not in the metadata" in run(*here, "check", url=upgraded).error
        assert "only when told: alembic -x drop-unknown=yes" in caplog.text
        refused = run(*here, "revision", "--autogenerate", "-m", "nothing", url=upgraded).error
        assert "public.user_presence: no longer in the metadata. Put it back, or drop it" in refused
        versions = checkout / "alembic" / "versions"
        told = (*here, "-x", "drop-unknown=yes", "revision", "--autogenerate", "-m", "drop it")
        assert run(*told, url=upgraded).status == 0
        assert "DROP TABLE public.user_presence" in next(versions.glob("*_drop_it.py")).read_text()


def test_column_of_somebody_else_is_not_taken_for_one_with_another_name(upgraded: URL, checkout: Path) -> None:
    execute(upgraded, "ALTER TABLE user_accounts ADD role text")
    here = ("-c", str(checkout / "alembic.ini"))
    with declared("ALTER TABLE user_accounts ADD note text"):
        error = run(*here, "check", url=upgraded).error
    assert "column public.user_accounts.note is missing" in error
    assert "column public.user_accounts.role is in neither the metadata nor a revision" in error


@pytest.mark.server
def test_members_of_an_extension_are_not_ours(upgraded: URL, caplog: pytest.LogCaptureFixture) -> None:
    execute(
        upgraded,
        """
        CREATE TABLE public.member_table (id integer);
        CREATE VIEW public.member_view AS SELECT 1 AS it;
        CREATE FUNCTION public.member_function() RETURNS integer LANGUAGE sql RETURN 1;
        CREATE TYPE public.member_type AS ENUM ('a');
        ALTER EXTENSION plpgsql ADD TABLE public.member_table;
        ALTER EXTENSION plpgsql ADD VIEW public.member_view;
        ALTER EXTENSION plpgsql ADD FUNCTION public.member_function();
        ALTER EXTENSION plpgsql ADD TYPE public.member_type;
        """,
    )
    assert run("check", url=upgraded).status == 0
    assert run("-x", "drop-unknown=yes", "check", url=upgraded).status == 0
    assert "member" not in caplog.text


@pytest.mark.server
def test_restored_database_is_not_a_difference(new_database: Callable[..., URL]) -> None:
    """PostgreSQL prints some expressions differently once it has read its own print."""
    first, second = new_database(), new_database()
    assert run("upgrade", "head", url=first).status == 0
    odd = "ALTER TABLE call_sessions ADD odd varchar DEFAULT 'a' CONSTRAINT odd CHECK (odd IN ('a', 'b'))"
    execute(first, odd)
    script = subprocess.run([program("pg_dump"), libpq(first)], capture_output=True, text=True, check=True).stdout
    psql(second, re.sub(r"^\\(un)?restrict.*\n|^SET transaction_timeout.*\n", "", script, flags=re.MULTILINE))
    printed = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = 'odd'"
    assert query(first, printed) != query(second, printed)
    with declared(odd):
        assert run("check", url=second).status == 0


@pytest.mark.server
def test_check_keeps_nobody_waiting(upgraded: URL) -> None:
    """While the stand-in is there, others read, write and create as if it were not."""
    seen: list[object] = []

    def meanwhile(*_: object, **__: object) -> None:
        with create_engine(upgraded, poolclass=NullPool).begin() as other:
            for sql in (
                "SET LOCAL lock_timeout = '1s'",
                "SELECT * FROM user_token_summary",
                "INSERT INTO call_sessions (room_id, mode) VALUES ('r', 'video')",
                "UPDATE user_accounts SET tokens_remaining = 1",
                "CREATE TABLE public.theirs (id integer)",
                "DROP TABLE public.theirs",
                "REFRESH MATERIALIZED VIEW matview",
            ):
                other.exec_driver_sql(sql)
        seen.append(query(upgraded, "SELECT count(*) FROM public.call_sessions"))

    execute(upgraded, "CREATE MATERIALIZED VIEW matview AS SELECT count(*) FROM token_usage")
    event.listen(metadata, "after_create", meanwhile)
    try:
        assert run("check", url=upgraded).status == 0
    finally:
        event.remove(metadata, "after_create", meanwhile)
    assert seen == [[(1,)]]


@pytest.mark.full
def test_two_checks_at_once_both_end_well(upgraded: URL) -> None:
    command = ("python", "-m", "alembic", "-x", f"url={upgraded.render_as_string(hide_password=False)}", "check")
    for process in [spawn(*command) for _ in range(3)]:
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, out + err


@pytest.fixture
def reader(upgraded: URL) -> URL:
    """A role that may read the version table, the log of adoptions and the rates, and nothing else."""
    name = f"reader_{upgraded.database}"
    execute(
        upgraded,
        f"CREATE ROLE {name} LOGIN PASSWORD '{name}'; GRANT USAGE ON SCHEMA oblivion TO {name};"
        f" GRANT SELECT ON oblivion.alembic_version, oblivion.adoption_log, token_rates TO {name};"
        " CREATE TABLE public.marker ()",
    )
    return upgraded.set(username=name, password=name)


@pytest.fixture
def scratch(empty: URL) -> URL:
    """An empty database to build in, of the server under test."""
    return empty


def test_check_says_what_it_lacks(upgraded: URL, reader: URL) -> None:
    error = run("check", url=reader).error
    assert "has to own schema public and to have CREATE on the database" in error
    assert "oblivion-schema check --against URL" in error
    execute(upgraded, f"ALTER DATABASE {upgraded.database} SET default_transaction_read_only = on")
    assert "which must not be read-only" in run("check", url=upgraded).error
    execute(upgraded.set(database=upgraded.database), "SET default_transaction_read_only = off")
    drop(upgraded, reader)


def drop(upgraded: URL, reader: URL) -> None:
    with create_engine(upgraded, poolclass=NullPool).connect() as connection:
        connection.exec_driver_sql("SET default_transaction_read_only = off")
        connection.commit()
        connection.exec_driver_sql(f"DROP OWNED BY {reader.username}")
        connection.exec_driver_sql(f"DROP ROLE {reader.username}")
        connection.commit()


def against(url: URL, *options: str) -> tuple[str, ...]:
    return ("check", "--against", url.render_as_string(hide_password=False), *options)


def to_scratch(url: URL) -> tuple[str, str]:
    return ("--scratch", url.render_as_string(hide_password=False))


def test_check_against_reads_production_only(upgraded: URL, reader: URL, scratch: URL) -> None:
    before, empty = dump(upgraded), dump(scratch)
    clean = run(*against(reader, *to_scratch(scratch)))
    assert (clean.status, clean.out) == (
        0,
        "Not ours, left alone: table public.marker\nNo difference between the database and the code.\n",
    )
    execute(
        upgraded,
        "ALTER TABLE user_accounts DISABLE TRIGGER update_user_accounts_updated_at; DROP INDEX idx_user_accounts_email",
    )
    differs = run(*against(reader, *to_scratch(scratch)))
    assert "index public.idx_user_accounts_email on public.user_accounts is missing" in differs.error
    assert "trigger state update_user_accounts_updated_at on public.user_accounts differs" in differs.error
    assert dump(scratch) == empty
    execute(upgraded, "ALTER TABLE user_accounts ENABLE TRIGGER update_user_accounts_updated_at")
    execute(upgraded, "CREATE INDEX idx_user_accounts_email ON user_accounts (email)")
    assert dump(upgraded) == before
    drop(upgraded, reader)


@pytest.mark.server
@pytest.mark.user
def test_check_against_builds_on_the_embedded_server_of_that_version(upgraded: URL) -> None:
    [(number,)] = query(upgraded, "SELECT current_setting('server_version_num')::integer / 10000")
    ended = spawn("python", "-m", "oblivion_schema", *against(upgraded))
    out, err = ended.communicate(timeout=120)
    if number in embedded.VERSIONS:
        assert (ended.returncode, out) == (0, "No difference between the database and the code.\n"), err
        assert not (embedded.data_directory(int(str(number))) / "postmaster.pid").exists()
    else:
        assert ended.returncode == 1
        assert f"FAILED: The database runs PostgreSQL {number}, and the embedded ones here are 16 and 18" in err


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        ("DROP TABLE oblivion.alembic_version", "has no oblivion.alembic_version: no revision was applied"),
        ("UPDATE oblivion.alembic_version SET version_num = '002'", "The database is at 002, the code at "),
        ("DELETE FROM oblivion.alembic_version", "The database is at no revision, the code at "),
        (
            "UPDATE oblivion.alembic_version SET version_num = '999'",
            "The database is at 999, which this version of oblivion_schema does not have",
        ),
    ],
)
@pytest.mark.few(prepare=(0, 1))
def test_check_against_another_revision_says_so(upgraded: URL, prepare: str, said: str) -> None:
    execute(upgraded, prepare)
    assert said in run(*against(upgraded)).error


def test_check_against_names_the_rights_that_are_missing(upgraded: URL, scratch: URL) -> None:
    name = f"nobody_{upgraded.database}"
    execute(upgraded, f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    url = upgraded.set(username=name, password=name)
    assert "GRANT USAGE ON SCHEMA oblivion" in run(*against(url, *to_scratch(scratch))).error
    execute(upgraded, f"GRANT USAGE ON SCHEMA oblivion TO {name}; GRANT SELECT ON oblivion.alembic_version TO {name}")
    for table in ("adoption_log", "token_rates"):
        denied = run(*against(url, *to_scratch(scratch))).error
        assert f"permission denied for table {table}: GRANT SELECT to the role of --against" in denied
        schema = "oblivion" if table == "adoption_log" else "public"
        execute(upgraded, f"GRANT SELECT ON {schema}.{table} TO {name}")
    assert "--scratch is the database of --against" in run(*against(url, *to_scratch(url))).error
    elsewhere = url.set(database=scratch.database)
    assert "The role of --scratch has to own schema public" in run(*against(url, *to_scratch(elsewhere))).error
    assert run(*against(url, *to_scratch(scratch))).status == 0
    execute(upgraded, f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.parametrize("mode", ["open", "authenticated"])
@pytest.mark.parametrize("where", ["production", "scratch", "both"])
@pytest.mark.few(where="both", mode="authenticated")
def test_check_against_knows_the_mode_and_the_publication_of_production(
    upgraded_sort: Callable[..., URL], scratch: URL, where: str, mode: str
) -> None:
    production = upgraded_sort("owner" if where == "scratch" else "supabase-new", "-x", f"access={mode}")
    if where != "production":
        execute(scratch, "CREATE PUBLICATION supabase_realtime")
    assert run(*against(production, *to_scratch(scratch))).status == 0


@pytest.mark.server
def test_revision_publishes_though_the_database_that_it_was_written_on_has_no_publication(
    upgraded: URL, upgraded_sort: Callable[..., URL], checkout: Path
) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    platform = upgraded_sort("supabase-new")
    members = "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'supabase_realtime' ORDER BY 1"
    before = query(platform, members)
    change = (
        *add_to_publication(REALTIME, "public.token_ledger"),
        *drop_from_publication(REALTIME, "public.user_presence"),
    )
    with declared(block(change)):
        assert run(*here, "revision", "--autogenerate", "-m", "tell", url=upgraded).status == 0
        for url in (upgraded, platform):
            assert run(*here, "upgrade", "head", url=url).status == 0
            assert run(*here, "check", url=url).status == 0
        assert query(platform, members) == [("call_sessions",), ("token_ledger",), ("user_accounts",)]
    assert query(upgraded, "SELECT FROM pg_publication") == []
    for url in (upgraded, platform):
        assert run(*here, "downgrade", "-1", url=url).status == 0
    assert query(platform, members) == before


@pytest.mark.full
def test_revision_of_the_function_that_is_the_mode_leaves_it(in_both_modes: tuple[URL, URL], checkout: Path) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    head = (
        "CREATE OR REPLACE FUNCTION oblivion.open_access() RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE COST 7"
    )
    change = (
        f"DO $$ BEGIN IF oblivion.open_access() THEN {head} SET search_path = '' RETURN true;"
        f" ELSE {head} SET search_path = '' RETURN false; END IF; END $$"
    )
    before = [dump(url) for url in in_both_modes]
    with declared(change):
        assert run(*here, "revision", "--autogenerate", "-m", "cost", url=in_both_modes[0]).status == 0
        for url in in_both_modes:
            assert run(*here, "upgrade", "head", url=url).status == 0
            assert run(*here, "check", url=url).status == 0
    assert [query(url, "SELECT oblivion.open_access()") for url in in_both_modes] == [[(True,)], [(False,)]]
    for url in in_both_modes:
        assert run(*here, "downgrade", "-1", url=url).status == 0
    assert [dump(url) for url in in_both_modes] == before


def test_scratch_alone_is_refused_and_passwords_are_not_shown(upgraded: URL) -> None:
    assert "--scratch belongs to check --against URL" in run("check", *to_scratch(upgraded)).error
    refused = run("check", "--against", "postgresql://me:secret@127.0.0.1:1/shop").error
    assert "Cannot connect to me@127.0.0.1:1/shop (--against)" in refused
    assert "secret" not in refused
    assert "--against is no database URL" in run("check", "--against", "nonsense").error


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        (
            "CREATE POLICY odd ON public.token_usage\n  FOR SELECT\n  USING (no_such_column = 1)",
            'policy odd on public.token_usage: column "no_such_column" does not exist, line 3: "USING (no_such_column',
        ),
        (
            "CREATE VIEW public.odd AS\nSELECT id,\n  nothing\nFROM public.call_sessions",
            'the metadata\'s view public.odd: column "nothing" does not exist, line 3: "nothing"',
        ),
        (
            "CREATE FUNCTION public.odd(a integer) RETURNS integer\nLANGUAGE sql\nRETURN b",
            'the metadata\'s function public.odd: column "b" does not exist, line 3: "RETURN b"',
        ),
        (
            "CREATE FUNCTION public.odd() RETURNS integer LANGUAGE plpgsql AS $$\nBEGIN\n  RETRUN 1;\nEND\n$$",
            'the metadata\'s function public.odd: syntax error at or near "RETRUN", line 3: "RETRUN 1;"',
        ),
        (
            "CREATE FUNCTION public.odd() RETURNS integer LANGUAGE sql AS $$\nSELECT 1\nFROM nowhere\n$$",
            'the metadata\'s function public.odd: relation "nowhere" does not exist, line 3: "FROM nowhere"',
        ),
        (
            "ALTER TABLE public.token_usage ADD CONSTRAINT odd CHECK (mode > 1)",
            "the metadata's table public.token_usage: operator does not exist: text > integer",
        ),
        ("CREATE INDEX odd ON public.token_usage (nothing)", "the metadata's index odd on public.token_usage: column"),
        ("GRANT SELECT ON public.token_usage TO nobody_there", 'role "nobody_there" does not exist'),
    ],
)
@pytest.mark.few(sql=(0, 2, 7))
@pytest.mark.server
def test_invalid_definition_is_named_with_its_line(as_made: tuple[URL, str], sql: str, said: str) -> None:
    url, before = as_made
    with declared(sql):
        error = run("check", url=url).error
    assert said in error
    assert error.endswith("Nothing was changed.")
    assert dump(url) == before


def test_kind_that_is_not_compared_is_refused_in_the_metadata(upgraded: URL) -> None:
    with declared("CREATE MATERIALIZED VIEW odd AS SELECT 1 AS it"):
        assert "The metadata makes or alters materialized view public.odd" in run("check", url=upgraded).error


@pytest.fixture
def bare_server() -> Iterator[URL]:
    """A server without the API roles, and a database of it whose owner may not make them."""
    home = temporary_home()
    server = embedded.start(home / "server", at_exit="delete")
    url = embedded.url(server)
    execute(url, "CREATE ROLE owner LOGIN")
    with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("CREATE DATABASE shop OWNER owner")
    execute(url.set(database="shop"), "REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    yield url
    server.cleanup()
    shutil.rmtree(home)


@pytest.mark.server
@pytest.mark.user
@pytest.mark.full
def test_without_the_api_roles_grants_are_not_compared_and_revisions_not_written(
    bare_server: URL, checkout: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop = bare_server.set(username="owner", database="shop")
    assert run("upgrade", "head", url=shop).status == 0
    assert "Mind that this server has no role anon, authenticated, service_role, which got no grants" in caplog.text
    assert run("check", url=shop).status == 0
    assert "Not compared, because the role does not exist: grants to anon, authenticated, service_role" in caplog.text
    execute(
        shop,
        """
        INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('r', 'demo_user', 'video');
        UPDATE call_sessions SET end_time = now();
        UPDATE user_accounts SET tokens_remaining = 3 WHERE user_id = 'demo_user';
        INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)
        VALUES ('demo_user', 's', 2, 'video', false);
        INSERT INTO user_presence (host_id, room_id) VALUES ('h', 'r')
        ON CONFLICT (host_id) DO UPDATE SET host_id = excluded.host_id
        """,
    )
    for view in ("daily_billing_summary", "daily_token_usage", "user_token_summary"):
        assert query(shop, f"SELECT * FROM {view}"), view
    written = run("-c", str(checkout / "alembic.ini"), "revision", "--autogenerate", "-m", "x", url=shop).error
    assert "no role anon, authenticated, service_role, so the revision would lack their grants" in written

    assert run("upgrade", "head", url=bare_server).status == 0
    assert run("check", url=bare_server).status == 0
    made = query(bare_server, "SELECT rolname, rolcanlogin, rolbypassrls FROM pg_roles WHERE rolname ~ 'anon|_role'")
    assert min(made) == ("anon", False, False)
    assert ("service_role", False, True) in made
    assert "grant SELECT on table public.token_usage to anon is missing" in run("check", url=shop).error
    assert run("access", "open", url=shop).status == 0, "which gives roles that were made meanwhile what is theirs"
    assert run("check", url=shop).status == 0
    usage = (
        "SELECT bool_and(has_schema_privilege(rolname, 'public', 'USAGE')) FROM pg_roles WHERE rolname ~ 'anon|_role'"
    )
    assert query(shop, usage) == [(True,)]


@pytest.fixture
def reference_table() -> Iterator[Table[Any]]:
    """A table of the metadata with reference rows, names that need quoting, and rows that name each other."""
    table = Table(
        "order",
        metadata,
        Column("user", Integer, primary_key=True, autoincrement=False),
        Column("timestamp", Text),
        Column("Mixed", Text),
        Column("next", ForeignKey("order.user")),
    )
    rows = ({"user": 1, "timestamp": "it's", "Mixed": "50 %", "next": 2}, {"user": 2, "timestamp": "x", "next": None})
    reference_rows(table, *({"Mixed": None, **row} for row in rows))
    row_level_security(table, select=EVERYBODY)
    grant(table, when_open=dict.fromkeys(API_ROLES, READ), authenticated={"authenticated": READ})
    yield table
    metadata.remove(table)


@pytest.mark.server
@pytest.mark.full
def test_reference_rows_are_written_whatever_the_names(
    upgraded: URL, checkout: Path, reference_table: Table[Any]
) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    before = dump(upgraded)
    assert run(*here, "revision", "--autogenerate", "-m", "orders", url=upgraded).status == 0
    assert run(*here, "upgrade", "head", url=upgraded).status == 0
    assert run(*here, "check", url=upgraded).status == 0
    written = query(upgraded, 'SELECT "user", "timestamp", "Mixed", next FROM "order" ORDER BY 1')
    assert written == [(1, "it's", "50 %", 2), (2, "x", None, None)]
    assert run(*here, "downgrade", "-1", url=upgraded).status == 0, "the rows are the schema's, not a user's"
    assert dump(upgraded) == before
    assert reference_table.name == "order"


@pytest.fixture
def in_both_modes(upgraded: URL, upgraded_sort: Callable[..., URL]) -> tuple[URL, URL]:
    """A database in the open mode, and one in the authenticated mode."""
    return upgraded, upgraded_sort("superuser", "-x", "access=authenticated")


@pytest.mark.parametrize("written_on", [0, 1], ids=["open", "authenticated"])
@pytest.mark.few(written_on=1)
def test_revision_written_in_one_access_mode_is_right_in_the_other(
    in_both_modes: tuple[URL, URL], checkout: Path, reference_table: Table[Any], written_on: int
) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    before = [dump(url) for url in in_both_modes]
    assert run(*here, "revision", "--autogenerate", "-m", "orders", url=in_both_modes[written_on]).status == 0
    for url in in_both_modes:
        assert run(*here, "upgrade", "head", url=url).status == 0
        assert run(*here, "check", url=url).status == 0
    may_read = f"SELECT has_table_privilege('anon', 'public.\"{reference_table.name}\"', 'SELECT')"
    assert [query(url, may_read) for url in in_both_modes] == [[(True,)], [(False,)]]
    for url in in_both_modes:
        assert run(*here, "downgrade", "-1", url=url).status == 0
    assert [dump(url) for url in in_both_modes] == before


@pytest.mark.parametrize("written_on", [0, 1], ids=["open", "authenticated"])
@pytest.mark.server
@pytest.mark.full
def test_grants_that_change_in_one_access_mode_alone_are_in_the_revision(
    in_both_modes: tuple[URL, URL], checkout: Path, written_on: int, caplog: pytest.LogCaptureFixture
) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    before = [dump(url) for url in in_both_modes]
    change = "GRANT DELETE ON user_accounts TO authenticated; REVOKE UPDATE (email) ON user_accounts FROM authenticated"
    when_closed = f"DO $$ BEGIN IF NOT oblivion.open_access() THEN {change}; END IF; END $$"
    # Makes way, and comes back with the grants of either mode.
    view = (
        "DROP VIEW active_calls; CREATE VIEW active_calls WITH (security_invoker = true) AS"
        " SELECT id FROM call_sessions; GRANT SELECT ON active_calls TO authenticated, service_role;"
        " DO $$ BEGIN IF oblivion.open_access() THEN GRANT SELECT ON active_calls TO anon; END IF; END $$"
    )
    with declared(when_closed, view):
        written = run(*here, "revision", "--autogenerate", "-m", "change", url=in_both_modes[written_on])
        assert written.status == 0
        if written_on == 0:
            assert "grant on TABLE public.user_accounts in the authenticated and metered mode differs" in caplog.text
        for url in in_both_modes:
            assert run(*here, "upgrade", "head", url=url).status == 0
            assert run(*here, "check", url=url).status == 0
            assert run(*here, "revision", "--autogenerate", "-m", "nothing", url=url).status == 0
            path = next((checkout / "alembic" / "versions").glob("*_nothing.py"))
            assert "run_sql(" not in path.read_text()
            path.unlink()
    for url in in_both_modes:
        assert run(*here, "downgrade", "-1", url=url).status == 0
    assert [dump(url) for url in in_both_modes] == before


@pytest.mark.full
def test_new_column_of_reference_rows_updates_them(upgraded: URL, checkout: Path, reference_table: Table[Any]) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    assert run(*here, "revision", "--autogenerate", "-m", "orders", url=upgraded).status == 0
    assert run(*here, "upgrade", "head", url=upgraded).status == 0
    execute(upgraded, 'ALTER TABLE "order" DROP "Mixed"')
    before = dump(upgraded)
    assert f'reference row 1 on public."{reference_table.name}" differs' in run(*here, "check", url=upgraded).error
    assert run(*here, "revision", "--autogenerate", "-m", "mixed", url=upgraded).status == 0
    assert run(*here, "upgrade", "head", url=upgraded).status == 0
    assert query(upgraded, 'SELECT "Mixed" FROM "order" ORDER BY "user"') == [("50 %",), (None,)]
    assert run(*here, "downgrade", "-1", url=upgraded).status == 0
    assert re.sub(r"'\d{3}'", "", dump(upgraded)) == re.sub(r"'\d{3}'", "", before)


def test_narrower_type_refuses_what_does_not_fit(upgraded: URL, checkout: Path) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    with declared(
        "ALTER TABLE user_accounts ALTER email TYPE varchar(12)",
        "ALTER TABLE user_presence ALTER room_token TYPE uuid USING room_token::uuid",
    ):
        assert run(*here, "revision", "--autogenerate", "-m", "narrow", url=upgraded).status == 0
    text = next((checkout / "alembic" / "versions").glob("*_narrow.py")).read_text()
    assert "TYPE character varying(12)" in text
    assert "USING email" not in text
    assert text.count("USING room_token::uuid") == 1, "the way back needs no cast"
    assert "value too long" in run(*here, "upgrade", "head", url=upgraded).error


def test_revision_after_one_with_an_expression_that_is_printed_otherwise(upgraded: URL, checkout: Path) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    table = "CREATE TABLE kinds (id bigint PRIMARY KEY, kind varchar(9), CHECK (kind IN ('a', 'b')))"
    with declared(table):
        assert run(*here, "revision", "--autogenerate", "-m", "kinds", url=upgraded).status == 0
        assert run(*here, "upgrade", "head", url=upgraded).status == 0
        assert run(*here, "check", url=upgraded).status == 0
    with declared(table, "COMMENT ON TABLE kinds IS 'Kinds'"):
        assert run(*here, "revision", "--autogenerate", "-m", "comment", url=upgraded).status == 0


def test_what_other_roles_may_do_outlives_a_view_that_makes_way(upgraded: URL, checkout: Path) -> None:
    other = f"other_{upgraded.database}"
    execute(
        upgraded,
        f"CREATE ROLE {other}; GRANT SELECT, UPDATE ON user_token_summary TO {other} WITH GRANT OPTION;"
        f" GRANT SELECT ON daily_token_usage TO {other}",
    )
    here = ("-c", str(checkout / "alembic.ini"))
    change = (
        "DROP VIEW user_token_summary; CREATE VIEW user_token_summary WITH (security_invoker = true) AS"
        " SELECT user_id AS account FROM user_accounts"
    )
    before = dump(upgraded)
    with declared(change):
        assert run(*here, "revision", "--autogenerate", "-m", "narrow", url=upgraded).status == 0
        assert run(*here, "upgrade", "head", url=upgraded).status == 0
        may = query(
            upgraded, f"SELECT has_table_privilege('{other}', 'user_token_summary', 'UPDATE WITH GRANT OPTION')"
        )
        assert may == [(True,)]
    assert run(*here, "downgrade", "-1", url=upgraded).status == 0
    assert sorted(dump(upgraded).splitlines()) == sorted(before.splitlines())
    execute(upgraded, f"DROP OWNED BY {other}; DROP ROLE {other}")


# A view and a function that read each other.
RING = """
CREATE VIEW ring AS SELECT 1::bigint AS it;
CREATE FUNCTION round() RETURNS bigint LANGUAGE sql STABLE SET search_path = ''
  BEGIN ATOMIC SELECT max(it) FROM public.ring; END;
CREATE OR REPLACE VIEW ring AS SELECT public.round() AS it;
"""


@pytest.mark.parametrize(
    ("by_hand", "change", "said"),
    [
        (
            "",
            RING,
            "No order is possible for function public.round(), view public.ring, which need each other",
        ),
        (
            "",
            "ALTER TABLE user_presence DROP room_token, ADD greeting text, ADD token text",
            "public.user_presence.room_token: gone from the metadata, but a new column of the same type",
        ),
        (
            "CREATE VIEW theirs AS SELECT email FROM user_accounts",
            "ALTER TABLE user_accounts ALTER email TYPE varchar(99)",
            "view public.theirs: not ours, but depends on an object that the revision drops or alters",
        ),
        (
            "CREATE RULE theirs AS ON INSERT TO user_token_summary DO INSTEAD NOTHING",
            "DROP VIEW user_token_summary",
            "rule theirs on public.user_token_summary: not ours",
        ),
    ],
)
@pytest.mark.few(change=(0, 1))
def test_revision_that_would_be_wrong_is_not_written(
    upgraded: URL, checkout: Path, by_hand: str, change: str, said: str
) -> None:
    if by_hand:
        execute(upgraded, by_hand)
    versions = sorted((checkout / "alembic" / "versions").iterdir())
    with declared(change):
        error = run("-c", str(checkout / "alembic.ini"), "revision", "--autogenerate", "-m", "x", url=upgraded).error
    assert said in error
    assert sorted((checkout / "alembic" / "versions").iterdir()) == versions


@pytest.mark.full
def test_new_column_that_is_not_the_last_is_refused_where_a_view_would_read_another_one(
    upgraded: URL, checkout: Path
) -> None:
    here = ("-c", str(checkout / "alembic.ini"))
    rest = (
        "CREATE FUNCTION pairs() RETURNS SETOF pair LANGUAGE sql STABLE SET search_path = ''"
        " AS 'SELECT * FROM public.pair';"
        " CREATE VIEW firsts AS SELECT a FROM pairs()"
    )
    with declared(f"CREATE TABLE pair (a text, b text); {rest}"):
        assert run(*here, "revision", "--autogenerate", "-m", "pair", url=upgraded).status == 0
        assert run(*here, "upgrade", "head", url=upgraded).status == 0
    with declared(f"CREATE TABLE pair (b text, a text); {rest}"):
        error = run(*here, "revision", "--autogenerate", "-m", "x", url=upgraded).error
    assert "public.pair: the columns stand in another order than in the database" in error


def test_what_was_altered_by_hand_is_said_when_a_revision_is_written(
    upgraded: URL, checkout: Path, caplog: pytest.LogCaptureFixture
) -> None:
    execute(upgraded, "DELETE FROM token_rates WHERE mode = 'voice' AND NOT used_turn")
    here = ("-c", str(checkout / "alembic.ini"))
    with declared("COMMENT ON TABLE token_rates IS 'other'"):
        assert run(*here, "revision", "--autogenerate", "-m", "x", url=upgraded).status == 0
    [said] = [message for message in caplog.messages if message.startswith("Altered by hand")]
    assert "reference row voice, false" in said
    assert "comment" not in said


def test_check_on_a_callers_connection_leaves_its_settings(upgraded: URL) -> None:
    from alembic import command

    from oblivion_schema.deploy.upgrade import config

    names = ("timezone", "datestyle", "search_path", "lock_timeout", "intervalstyle")
    with create_engine(upgraded, poolclass=NullPool).begin() as connection:
        connection.exec_driver_sql("SET timezone = 'Europe/Berlin'; SET datestyle = 'German'; SET lock_timeout = '7s'")
        before = [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names]
        configuration = config()
        configuration.attributes["connection"] = connection
        command.check(configuration)
        assert [connection.exec_driver_sql(f"SHOW {name}").scalar() for name in names] == before
