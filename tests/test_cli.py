"""`oblivion-schema`: Alembic's commands, verify, psql and stop, from a checkout and from an installed wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
from hatchling.builders.wheel import WheelBuilder
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from support import PROJECT, dump, execute, query, run, spawn, wait_until

from oblivion_schema import embedded
from oblivion_schema.verify import verify

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL


def failed(connection: Connection) -> list[str]:
    return [str(check) for check in verify(connection) if not check.passed]


def test_verify_passes_line_by_line_and_leaves_nothing(upgraded: URL) -> None:
    before = dump(upgraded)
    with create_engine(upgraded, poolclass=NullPool).connect() as connection:
        assert failed(connection) == []
        connection.commit()
    result = run("verify", url=upgraded)
    lines = result.out.splitlines()
    assert result.status == 0
    assert all(line.startswith("ok    ") for line in lines), result.out
    for subject in (
        "table user_accounts",
        "view active_calls",
        "index",
        "row level security",
        "policy",
        "demo accounts",
    ):
        assert any(line.startswith(f"ok    {subject}") for line in lines), subject
    assert dump(upgraded) == before


def test_verify_fails_on_an_empty_database(empty: URL) -> None:
    result = run("verify", url=empty)
    assert result.status == 1
    assert not any(line.startswith("ok") for line in result.out.splitlines())


def test_verify_passes_without_demo_accounts(empty: URL) -> None:
    assert run("-x", "demo=no", "upgrade", "head", url=empty).status == 0
    result = run("verify", url=empty)
    assert (result.status, "ok    demo accounts: none, left out" in result.out) == (0, True)


def objects(connection: Connection) -> list[tuple[str, str]]:
    """Every object that verify shall miss when it is gone: what drops it, and the line that says so."""
    listing = """
        SELECT format('DROP VIEW %I', relname), concat('FAIL  view ', relname) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
        UNION ALL
        SELECT format('ALTER VIEW %I SET (security_invoker = false)', relname), concat('FAIL  view ', relname)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
        UNION ALL
        SELECT format('DROP TABLE %I CASCADE', relname), concat('FAIL  table ', relname) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
        UNION ALL
        SELECT format('ALTER TABLE %s DROP COLUMN %I CASCADE', attrelid::regclass, attname),
          concat('FAIL  table ', relname)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
        UNION ALL
        SELECT format('DROP INDEX %I', indexname), format('FAIL  index %s.%s', tablename, indexname)
        FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%_pkey'
        UNION ALL
        SELECT format('DROP POLICY %I ON %I', policyname, tablename),
          format('FAIL  policy %s.%s', tablename, policyname)
        FROM pg_policies WHERE schemaname = 'public'
        UNION ALL
        SELECT format('ALTER TABLE %I DISABLE ROW LEVEL SECURITY', relname),
          concat('FAIL  row level security of ', relname)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
        UNION ALL
        SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass),
          format('FAIL  trigger %s.%s', tgrelid::regclass, tgname)
        FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', tgrelid::regclass, tgname),
          format('FAIL  trigger %s.%s', tgrelid::regclass, tgname)
        FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT format('DROP FUNCTION %s CASCADE', p.oid::regprocedure), concat('FAIL  function ', proname)
        FROM pg_proc AS p WHERE pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT format('ALTER TABLE %s DROP CONSTRAINT %I CASCADE', conrelid::regclass, conname),
          format('FAIL  constraint %s.%s', conrelid::regclass, conname)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'p')
        UNION ALL
        SELECT format('ALTER TABLE %s ALTER %I DROP NOT NULL', attrelid::regclass, attname),
          concat('FAIL  table ', relname)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND attnotnull
          AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = attrelid AND indisprimary AND attnum = ANY (indkey))
        UNION ALL
        VALUES
          ('DELETE FROM oblivion.alembic_version', 'FAIL  revision 004: the database is at none'),
          ('DELETE FROM token_rates WHERE mode = ''video''', 'FAIL  token rates: video, video over TURN'),
          ('UPDATE token_rates SET tokens_per_minute = 0', 'FAIL  token rates'),
          ('DELETE FROM user_accounts WHERE user_id = ''developer''', 'FAIL  demo accounts: developer missing'),
          ('ALTER TABLE call_sessions ADD x text NOT NULL', 'FAIL  a call can be inserted')
    """
    return [(sql, line) for sql, line in connection.execute(text(listing))]


def test_verify_names_each_object_that_is_gone(engine: Engine) -> None:
    with engine.connect() as connection:
        cases = objects(connection)
        assert len(cases) > 120
        for sql, line in cases:
            with connection.begin_nested() as savepoint:
                connection.execute(text(sql))
                assert any(found.startswith(line) for found in failed(connection)), sql
                savepoint.rollback()
        assert failed(connection) == []


@pytest.mark.parametrize("command", ["current", "heads", "history", "branches", "show head"])
def test_alembics_commands_are_there(upgraded: URL, command: str) -> None:
    result = run(*command.split(), url=upgraded)
    assert result.status == 0
    assert "004" in result.out or command == "branches"


def test_history_and_heads_need_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oblivion_schema.embedded.is_installed", lambda: False)
    for command in ("history", "heads", "show head"):
        assert "004" in run(*command.split()).out


def test_version_is_the_packages_own() -> None:
    assert run("--version").out == run("--version", "heads").out
    assert re.fullmatch(r"oblivion-schema \d+\.\d+\.\d+, alembic \d+\.\d+\.\d+\n", run("--version").out)


@pytest.mark.parametrize("source", ["OBLIVION_DATABASE_URL", "DATABASE_URL", "sqlalchemy.url"])
def test_each_source_of_the_url_is_asked(
    upgraded: URL, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = upgraded.render_as_string(hide_password=False)
    ini = tmp_path / "alembic.ini"
    given = f"sqlalchemy.url = {url.replace('%', '%%')}\n" if source == "sqlalchemy.url" else ""
    ini.write_text(f"[alembic]\nscript_location = {PROJECT}/alembic\n{given}")
    if not given:
        monkeypatch.setenv(source, url)
    assert "004 (head)" in run("-c", str(ini), "current").out


def test_missing_configuration_file_is_named() -> None:
    assert "-c nowhere.ini: there is no such file." in run("-c", "nowhere.ini", "heads").error


def test_command_without_words_is_refused_with_its_usage() -> None:
    result = run()
    assert result.status == 2
    assert "usage: oblivion-schema" in result.err


def test_psql_gets_all_further_arguments_and_no_password(upgraded: URL) -> None:
    url = upgraded.set(password="hunter2").render_as_string(hide_password=False)
    sql = "SELECT user_id FROM user_token_summary WHERE user_id = 'demo_user'"
    psql = spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", "psql", "-X", "-At", "-c", sql)
    out, err = psql.communicate(timeout=30)
    assert (psql.returncode, out.strip()) == (0, "demo_user"), err
    failing = spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", "psql", "-Xc", "SELECT nonsense")
    failing.communicate(timeout=30)
    assert failing.returncode == 1


def test_psql_is_told_every_host_and_option_and_the_password_by_its_environment_alone(tmp_path: Path) -> None:
    spy = tmp_path / "psql"
    spy.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/arguments\necho "$PGPASSWORD" > {tmp_path}/password\n')
    spy.chmod(0o755)
    url = "postgresql://me:hunter2@/shop?host=a:1&host=b:2&application_name=till&channel_binding=require"
    command = ["python", "-m", "oblivion_schema", "-x", f"url={url}", "psql", "-c", "SELECT 1"]
    ended = spawn(*command, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (ended.communicate(timeout=30), ended.returncode) == (("", ""), 0)
    arguments = (tmp_path / "arguments").read_text()
    assert "hunter2" not in arguments
    for told in ("host=a,b", "port=1,2", "user=me", "dbname=shop", "application_name=till", "channel_binding=require"):
        assert told in arguments
    assert arguments.endswith(" -c SELECT 1\n")
    assert (tmp_path / "password").read_text() == "hunter2\n"


@pytest.mark.skipif(os.name != "posix", reason="Windows has no exec")
def test_psql_takes_our_place_so_that_control_c_ends_its_query_and_not_itself(upgraded: URL) -> None:
    url = upgraded.render_as_string(hide_password=False)
    waiting = spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", "psql", "-Xc", "SELECT pg_sleep(60)")
    wait_until(lambda: query(upgraded, "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
    name = psutil.Process(waiting.pid).name()
    waiting.kill()
    waiting.communicate()
    assert name == "psql"


def test_installed_wheel_upgrades_away_from_the_checkout(empty: URL, tmp_path: Path) -> None:
    [wheel] = WheelBuilder(str(PROJECT)).build(directory=str(tmp_path), versions=["standard"])
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", site, wheel], check=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # A service's own Alembic must not be taken for ours.
    (elsewhere / "alembic.ini").write_text("[alembic]\nscript_location = nowhere\n")
    program = [sys.executable, "-m", "oblivion_schema", "-x", f"url={empty.render_as_string(hide_password=False)}"]
    environment = {"PYTHONPATH": str(site), "PATH": ""}
    commands = ("inspect", "prepare", "upgrade head", "verify", "check", "history", "reap", "settle")
    for command in map(str.split, commands):
        ended = subprocess.run(
            [*program, *command], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
    refused = subprocess.run(
        [*program, "revision", "-m", "x"], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert "takes no new revisions: write them in a checkout" in refused.stderr
    code = "import oblivion_schema; print(oblivion_schema.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
    )
    assert where.stdout.startswith(str(site))
    assert {path.name for path in (site / "oblivion_schema").iterdir()} >= {"py.typed", "migrations", "functions"}
    assert query(empty, "SELECT version_num FROM oblivion.alembic_version") == [("004",)]


def test_stop_says_when_there_is_nothing_to_stop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(embedded.DIRECTORY_VARIABLE, str(tmp_path))
    result = run("stop")
    assert (result.status, result.out) == (
        0,
        f"Not running: embedded PostgreSQL in {tmp_path}/postgresql-{embedded.version()}\n",
    )


def test_verify_says_what_it_may_not_do(upgraded: URL) -> None:
    role = f"{upgraded.database}_reader"
    execute(upgraded, f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        result = run("verify", url=upgraded.set(username=role))
        assert result.status == 1
        assert [line for line in result.out.splitlines() if line.startswith("FAIL")] == [
            "FAIL  revision: permission denied for schema oblivion",
            "FAIL  access: permission denied for schema oblivion",
            "FAIL  every balance is the sum of its ledger: permission denied for schema oblivion",
            "FAIL  every call that has ended is billed: permission denied for schema oblivion",
            "FAIL  a call can be inserted and is active (rolled back): permission denied for table call_sessions",
        ]
    finally:
        execute(upgraded, f"DROP OWNED BY {role}; DROP ROLE {role}")
