"""`oblivion-schema`: Alembic's commands, verify, psql and stop, from a checkout and from an installed wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import psutil
import pytest
from hatchling.builders.wheel import WheelBuilder
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from support import PROJECT, REVISIONS, dump, examples, execute, query, run, spawn, wait_until

from oblivion_schema.commands.verify import verify
from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL


def failed(connection: Connection) -> list[str]:
    return [str(check) for check in verify(connection) if not check.passed]


@pytest.mark.server
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
        SELECT format('ALTER TABLE %s %s DROP CONSTRAINT %I CASCADE',
          CASE WHEN contype IN ('p', 'u') THEN 'ONLY' END, conrelid::regclass, conname),
          format('FAIL  constraint %s.%s', conrelid::regclass, conname)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'p')
        UNION ALL
        SELECT format('ALTER TABLE %s ALTER %I DROP NOT NULL', attrelid::regclass, attname),
          concat('FAIL  table ', relname)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND attnotnull
          AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = attrelid AND indisprimary AND attnum = ANY (indkey))
        UNION ALL
        SELECT format('DROP %s oblivion.%I CASCADE', kind, relname),
          format('FAIL  %s oblivion.%s', lower(kind), relname)
        FROM pg_class CROSS JOIN LATERAL (SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END) AS k (kind)
        WHERE relnamespace = 'oblivion'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'alembic_version'
        UNION ALL
        SELECT format('DROP INDEX oblivion.%I', relname), format('FAIL  index %s.%s', indrelid::regclass, relname)
        FROM pg_index JOIN pg_class AS i ON i.oid = indexrelid
        WHERE relnamespace = 'oblivion'::regnamespace
          AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
        UNION ALL
        SELECT format('ALTER TABLE %s %s DROP CONSTRAINT %I CASCADE',
          CASE WHEN contype IN ('p', 'u') THEN 'ONLY' END, conrelid::regclass, conname),
          format('FAIL  constraint %s.%s', conrelid::regclass, conname)
        FROM pg_constraint WHERE connamespace = 'oblivion'::regnamespace AND contype IN ('c', 'f', 'p', 'u')
          AND conname <> 'alembic_version_pkc'
        UNION ALL
        SELECT format('DROP FUNCTION %s CASCADE', p.oid::regprocedure), concat('FAIL  function oblivion.', proname)
        FROM pg_proc AS p WHERE pronamespace = 'oblivion'::regnamespace
        UNION ALL
        VALUES
          (
            'DELETE FROM oblivion.alembic_version',
            (SELECT format('FAIL  revision %s: the database is at none', version_num) FROM oblivion.alembic_version)
          ),
          ('DELETE FROM token_rates WHERE mode = ''video''', 'FAIL  token rates: video, video over TURN'),
          ('UPDATE token_rates SET tokens_per_minute = 0', 'FAIL  token rates'),
          ('DELETE FROM user_accounts WHERE user_id = ''developer''', 'FAIL  demo accounts: developer missing'),
          ('ALTER TABLE call_sessions ADD x text NOT NULL', 'FAIL  a call can be inserted')
    """
    return [(sql, line) for sql, line in connection.execute(text(listing))]


# What goes alone: all of such a kind can go at once, and then nothing else may be named.
ALONE = re.compile(r"DROP (POLICY|INDEX|TRIGGER) |ALTER (TABLE|VIEW) \S+ (DISABLE|SET) ")
# What takes something of another kind with it, and nothing of its own: one of each line can go at once.
TOGETHER = re.compile(r"DROP (VIEW|TABLE) |ALTER TABLE (ONLY )?\S+ (DROP (COLUMN|CONSTRAINT)|ALTER \S+ DROP NOT NULL)")


def taken(cases: list[tuple[str, str]]) -> Iterator[tuple[bool, list[tuple[str, str]]]]:
    """What is tried at once, and whether nothing else may be named then."""
    alone: dict[str, list[tuple[str, str]]] = defaultdict(list)
    together: dict[tuple[object, ...], list[tuple[str, str]]] = defaultdict(list)
    seen: Counter[tuple[object, ...]] = Counter()
    singly = []
    for sql, line in cases:
        if match := ALONE.match(sql):
            kind = line.partition(".")[0].rpartition(" ")[0] if match[1] else line.split()[1]
            alone[f"{match[1]} {match[3]} {kind}"].append((sql, line))
        elif match := TOGETHER.match(sql):
            kinds = (match[1], match[2], (match[3] or "").split(" ")[0], match[4], "oblivion." in line)
            seen[*kinds, line] += 1
            together[*kinds, seen[*kinds, line]].append((sql, line))
        else:
            singly.append([(sql, line)])
    yield from ((True, its) for its in alone.values())
    yield from ((False, its) for its in together.values())
    yield from ((False, its) for its in singly[:: examples(1, quick=6)])


@pytest.mark.full
def test_verify_names_each_object_that_is_gone(engine: Engine) -> None:
    with engine.connect() as connection:
        cases = objects(connection)
        assert len(cases) > 200
        for nothing_else, its in taken(cases):
            with connection.begin_nested() as savepoint:
                connection.execute(text("; ".join(sql for sql, _ in its)))
                said = failed(connection)
                if nothing_else:
                    found = [re.split(r"(?<!FAIL)[:,] ", line)[0] for line in said]
                    assert sorted(found) == sorted(line for _, line in its), its
                for sql, line in its:
                    assert any(found.startswith(line) for found in said), sql
                savepoint.rollback()
        assert failed(connection) == []


def said_of(connection: Connection, subject: str) -> str:
    """What the line of that subject says."""
    [line] = [str(check) for check in verify(connection) if check.subject == subject]
    return line


def test_verify_names_the_first_balances_that_are_not_the_sum_of_their_ledger(engine: Engine) -> None:
    subject = "every balance is the sum of its ledger"
    with engine.connect() as connection:
        connection.execute(
            text("INSERT INTO user_accounts (user_id) SELECT 'user ' || n FROM generate_series(1, 9) AS n")
        )
        connection.execute(text("UPDATE user_accounts SET tokens_remaining = 7 WHERE user_id LIKE 'user %'"))
        assert said_of(connection, subject) == f"ok    {subject}"
        for past_the_triggers, named in (
            (
                (
                    "ALTER TABLE user_accounts DISABLE TRIGGER write_ledger;"
                    " UPDATE user_accounts SET tokens_remaining = 9 WHERE user_id = 'user 3'"
                ),
                "1 balances are wrong (user 3: drift 2, gaps 0)",
            ),
            (
                "DELETE FROM token_ledger WHERE user_id = 'user 4' AND kind = 'opening'",
                "1 balances are wrong (user 4: drift 100, gaps 1)",
            ),
            (
                # The sum is right.
                (
                    "UPDATE token_ledger SET tokens = 0, balance = 0 WHERE user_id = 'user 5' AND kind = 'opening';"
                    " UPDATE token_ledger SET tokens = 7, balance = 8 WHERE user_id = 'user 5' AND kind = 'direct'"
                ),
                "1 balances are wrong (user 5: drift 0, gaps 1)",
            ),
            (
                (
                    "ALTER TABLE user_accounts DISABLE TRIGGER close_ledger; DELETE FROM user_accounts"
                    " WHERE user_id = 'user 6'"
                ),
                "1 balances are wrong (user 6: drift -7, gaps 0)",
            ),
            (
                "DELETE FROM token_ledger WHERE user_id LIKE 'user %'",
                (
                    "9 balances are wrong (user 1: drift 7, gaps 0; user 2: drift 7, gaps 0; user 3: drift 7, gaps 0;"
                    " user 4: drift 7, gaps 0; user 5: drift 7, gaps 0 and 4 more)"
                ),
            ),
        ):
            with connection.begin_nested() as savepoint:
                connection.execute(text(past_the_triggers))
                says = (
                    f"FAIL  {subject}: {named}: something bypassed the triggers: oblivion.balance_audit has all of them"
                )
                assert said_of(connection, subject) == says
                savepoint.rollback()


def test_verify_counts_calls_and_incidents_that_wait_to_be_settled(engine: Engine) -> None:
    subject = "every call that has ended is billed"
    calls = "UPDATE call_sessions SET start_time = start_time - interval '1 year', {}"
    with engine.connect() as connection:
        for key in ("one", "two"):
            connection.execute(text(f"SELECT start_call('demo_user', 'r', 'video', true, '{key}')"))
        assert said_of(connection, subject) == f"ok    {subject}", "they go on"
        # A year over TURN costs more than can be said.
        connection.execute(text(calls.format("end_time = NULL")))
        assert connection.scalar(text("SELECT string_agg(status, ' ') FROM call_sessions, tick_call(id)")) == (
            "unsettled unsettled"
        )
        assert said_of(connection, subject) == f"ok    {subject}", "their next ticks may be billed"
        connection.execute(
            text("UPDATE oblivion.billing_incidents SET first_at = first_at - interval '61 minutes' WHERE id % 2 = 0")
        )
        waits = (
            "{} ended calls are not billed, {} incidents are open for more than an hour: run oblivion-schema"
            " settle; oblivion.billing_incidents has the reasons"
        )
        assert said_of(connection, subject) == f"FAIL  {subject}: {waits.format(0, 1)}"
        connection.execute(text("SELECT end_call(id) FROM call_sessions"))
        assert said_of(connection, subject) == f"FAIL  {subject}: {waits.format(2, 1)}"
        connection.execute(text("UPDATE call_sessions SET start_time = end_time - interval '61 seconds'"))
        assert connection.scalar(text("SELECT sum(charged) FROM settle_calls()")) == 24
        assert said_of(connection, subject) == f"ok    {subject}"


def test_verify_names_calls_whose_usage_somebody_changed(engine: Engine) -> None:
    subject = "every token that a call cost is in token_usage, or in its meter"
    with engine.connect() as connection:
        calls = [
            connection.scalar(text(f"SELECT session_id FROM start_call('demo_user', 'r', 'video', {turn})"))
            for turn in (False, True, False)
        ]
        for function in ("tick_call('{0}')", "set_call_turn('{0}', false)", "tick_call('{1}')", "end_call('{2}')"):
            connection.execute(text(f"SELECT {function.format(*calls)}"))
        assert said_of(connection, subject) == f"ok    {subject}"
        connection.execute(text("UPDATE token_usage SET tokens_used = 9"))
        assert said_of(connection, subject) == (
            f"FAIL  {subject}: 1 calls have other tokens there ({calls[2]}: 9 of 2): rows of token_usage"
            " were written or deleted past the engine; no balance depends on them"
        )
        connection.execute(text("DELETE FROM user_accounts WHERE user_id = 'demo_user'"))
        assert said_of(connection, subject) == f"ok    {subject}", "its usage went with the account"


@pytest.mark.parametrize("command", ["current", "heads", "history", "branches", "show head"])
def test_alembics_commands_are_there(upgraded: URL, command: str) -> None:
    result = run(*command.split(), url=upgraded)
    assert result.status == 0
    assert REVISIONS[-1] in result.out or command == "branches"


def test_history_and_heads_need_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("oblivion_schema.server.embedded.is_installed", lambda: False)
    for command in ("history", "heads", "show head"):
        assert REVISIONS[-1] in run(*command.split()).out


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
    assert f"{REVISIONS[-1]} (head)" in run("-c", str(ini), "current").out


def test_missing_configuration_file_is_named() -> None:
    assert "-c nowhere.ini: the file does not exist." in run("-c", "nowhere.ini", "heads").error


def test_command_without_words_is_refused_with_its_usage() -> None:
    result = run()
    assert result.status == 2
    assert "usage: oblivion-schema" in result.err


@pytest.mark.full
def test_psql_gets_all_further_arguments_and_no_password(upgraded: URL) -> None:
    url = upgraded.set(password="hunter2").render_as_string(hide_password=False)
    sql = "SELECT user_id FROM user_token_summary WHERE user_id = 'demo_user'"
    psql = spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", "psql", "-X", "-At", "-c", sql)
    out, err = psql.communicate(timeout=30)
    assert (psql.returncode, out.strip()) == (0, "demo_user"), err
    failing = spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", "psql", "-Xc", "SELECT nonsense")
    failing.communicate(timeout=30)
    assert failing.returncode == 1


@pytest.mark.user
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
@pytest.mark.full
def test_psql_takes_our_place_so_that_control_c_ends_its_query_and_not_itself(upgraded: URL) -> None:
    url = upgraded.render_as_string(hide_password=False)
    waiting = spawn("python", "-m", "oblivion_schema", "-x", f"url={url}", "psql", "-Xc", "SELECT pg_sleep(60)")
    wait_until(lambda: query(upgraded, "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
    name = psutil.Process(waiting.pid).name()
    waiting.kill()
    waiting.communicate()
    assert name == "psql"


@pytest.mark.user
@pytest.mark.full
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
    package = site / "oblivion_schema"
    assert (package / "py.typed").is_file()
    for installed, source in ((package, "oblivion_schema"), (package / "migrations", "alembic")):
        files = {file.relative_to(PROJECT / source) for file in (PROJECT / source).rglob("*.sql")}
        assert files <= {file.relative_to(installed) for file in installed.rglob("*.sql")}
    assert query(empty, "SELECT version_num FROM oblivion.alembic_version") == [(REVISIONS[-1],)]


@pytest.mark.user
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
            "FAIL  pages: permission denied for schema oblivion",
            "FAIL  every balance is the sum of its ledger: permission denied for schema oblivion",
            "FAIL  every call that has ended is billed: permission denied for schema oblivion",
            (
                "FAIL  every token that a call cost is in token_usage, or in its meter:"
                " permission denied for schema oblivion"
            ),
            "FAIL  every sum in the roll-ups is that of its rows: permission denied for schema oblivion",
            "FAIL  a call can be inserted and is active (rolled back): permission denied for table call_sessions",
        ]
    finally:
        execute(upgraded, f"DROP OWNED BY {role}; DROP ROLE {role}")
