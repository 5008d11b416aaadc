"""`oblivion-schema prepare` does the long part of an adoption beforehand: the upgrade then ends at the same rows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from alembic.script import ScriptDirectory
from legacy_states import STATES
from sqlalchemy import NullPool, create_engine, text
from support import dump, execute, psql, query, run

from oblivion_schema.adoption import preparation
from oblivion_schema.deploy import upgrade as migrate
from oblivion_schema.operations import requests_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

pytestmark = pytest.mark.server

FULL = next(state for state in STATES if state.name == "presence fixed and safe, billing")
FIRST = next(state for state in STATES if state.name == "calls only, billing")
UNPREPARED = "SELECT conname FROM pg_constraint WHERE conname LIKE '%prepared_check' AND NOT convalidated"
PREPARED = [("call_sessions_prepared_check",), ("token_usage_prepared_check",), ("user_accounts_prepared_check",)]


def steps() -> list[preparation.Step]:
    revisions = ScriptDirectory.from_config(migrate.config())
    return preparation.steps(requests_of(reversed(list(revisions.walk_revisions()))), "1s")


def checks(url: URL) -> list[tuple[object, ...]]:
    return query(
        url, "SELECT conname FROM pg_constraint WHERE conname LIKE '%prepared_check' AND convalidated ORDER BY 1"
    )


def rows(url: URL) -> str:
    """All rows as pg_dump prints them, without the times that are of this run."""
    printed = [line for line in dump(url).splitlines() if line.startswith("INSERT INTO public.")]
    return "\n".join(sorted(re.sub(r"'2026-(0[2-9]|1\d)[^']*'", "'<now>'", line) for line in printed))


@pytest.mark.parametrize("state", [FIRST, FULL], ids=str)
@pytest.mark.few(state="presence fixed and safe, billing")
def test_prepared_database_ends_at_the_same_rows(new_database: Callable[..., URL], state: object) -> None:
    plain, prepared = new_database(), new_database(owner=True)
    for url in (plain, prepared):
        execute(url, (FIRST if state is FIRST else FULL).script(rows=True, by_hand=True))
    hosts = query(prepared, "SELECT * FROM user_presence ORDER BY id")
    said = run("prepare", url=prepared)
    assert said.status == 0, said
    assert "public.call_sessions: filled the NULLs of 5 rows\n" in said.out
    assert "CREATE INDEX CONCURRENTLY idx_call_sessions_active ON public.call_sessions" in said.out
    assert query(prepared, "SELECT * FROM user_presence ORDER BY id") == hosts
    assert checks(prepared) == PREPARED
    assert run("prepare", url=prepared).out == "Nothing to prepare.\n"
    for url in (plain, prepared):
        assert run("upgrade", "head", url=url).status == 0
    assert rows(prepared) == rows(plain)
    assert checks(prepared) == []
    filled = "SELECT name FROM oblivion.adoption_log WHERE kind = 'filled'"
    assert query(prepared, filled) == [("public.user_presence",)]
    assert run("check", url=prepared).status == 0
    assert run("prepare", url=prepared).out == "Nothing to prepare.\n"


def test_index_that_a_later_revision_drops_is_not_built(empty: URL) -> None:
    execute(empty, FULL.script(rows=True))
    execute(empty, "DROP INDEX idx_token_usage_session_id, idx_token_usage_timestamp")
    said = run("prepare", url=empty).out
    assert "CREATE INDEX CONCURRENTLY idx_token_usage_timestamp ON" in said
    assert "idx_token_usage_session_id" not in said


def test_interrupted_after_any_step_it_goes_on(new_database: Callable[..., URL]) -> None:
    url = new_database()
    execute(url, FULL.script(rows=True))
    found = steps()
    engine = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for number in range(1, len(found)):
            list(preparation.run(connection, found[:number]))
        connection.execute(text("UPDATE user_accounts SET email = 'still' WHERE user_id = 'bare'"))
    # What an interrupted build leaves.
    execute(url, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_call_sessions_active'::regclass")
    said = run("prepare", url=url)
    assert "DROP INDEX CONCURRENTLY public.idx_call_sessions_active\nCREATE INDEX CONCURRENTLY" in said.out
    assert checks(url) == PREPARED
    assert query(url, UNPREPARED) == []
    assert run("prepare", url=url).out == "Nothing to prepare.\n"


def test_printed_statements_do_the_same_by_psql(new_database: Callable[..., URL]) -> None:
    url = new_database(owner=True)
    execute(url, FULL.script(rows=True))
    printed = run("prepare", "--sql", url="postgresql://nowhere.invalid/none")
    assert printed.status == 0
    psql(url, printed.out)
    psql(url, printed.out)
    assert checks(url) == PREPARED
    assert run("prepare", url=url).out == "Nothing to prepare.\n"


@pytest.mark.parametrize("state", ["nothing", "ours"])
@pytest.mark.few(state=("nothing", "ours"))
def test_nothing_is_prepared_where_there_is_nothing_to_adopt(empty: URL, upgraded: URL, state: str) -> None:
    url = empty if state == "nothing" else upgraded
    before = dump(url)
    assert run("prepare", url=url).out == "Nothing to prepare.\n"
    psql(url, run("prepare", "--sql").out)
    assert dump(url) == before


def test_table_that_is_filled_from_one_that_is_missing_is_left_to_the_upgrade(empty: URL) -> None:
    execute(empty, next(state for state in STATES if state.name == "billing alone").script(rows=True))
    assert run("prepare", url=empty).status == 0
    assert checks(empty) == [("user_accounts_prepared_check",)]
    assert run("upgrade", "head", url=empty).status == 0


def test_rows_that_the_owner_may_not_see_are_left_to_the_upgrade(empty: URL) -> None:
    execute(empty, FULL.script(rows=True))
    execute(empty, "ALTER TABLE token_usage FORCE ROW LEVEL SECURITY")
    assert run("prepare", url=empty).status == 0
    assert checks(empty) == [("call_sessions_prepared_check",), ("user_accounts_prepared_check",)]


def test_triggers_are_as_they_were(empty: URL) -> None:
    execute(empty, FULL.script(rows=True))
    execute(
        empty,
        """
        CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no updates'; END $$;
        CREATE TRIGGER a BEFORE UPDATE ON call_sessions FOR EACH ROW EXECUTE FUNCTION audit();
        CREATE TRIGGER r BEFORE UPDATE ON call_sessions FOR EACH ROW EXECUTE FUNCTION audit();
        CREATE TRIGGER d BEFORE UPDATE ON call_sessions FOR EACH ROW EXECUTE FUNCTION audit();
        ALTER TABLE call_sessions ENABLE ALWAYS TRIGGER a, ENABLE REPLICA TRIGGER r, DISABLE TRIGGER d;
        """,
    )
    states = "SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'call_sessions'::regclass ORDER BY 1"
    before = query(empty, states)
    assert run("prepare", url=empty).status == 0
    assert query(empty, states) == before


def test_busy_table_stops_it_and_is_named(empty: URL) -> None:
    execute(empty, FULL.script(rows=True))
    engine = create_engine(empty, poolclass=NullPool, connect_args={"application_name": "billing page"})
    with engine.begin() as connection:
        connection.execute(text("UPDATE token_usage SET tokens_used = tokens_used"))
        stopped = run("-x", "lock-timeout=50ms", "prepare", url=empty)
    assert "public.token_usage is held by process" in stopped.error
    assert "billing page" in stopped.error
    assert "What was prepared before stays so: end that session, or wait longer" in stopped.error
    assert run("prepare", url=empty).status == 0
    assert checks(empty) == PREPARED
