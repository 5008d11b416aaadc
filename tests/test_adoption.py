"""Databases that people made by hand become ours: in every known state, with their rows, and with what is not ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from alembic.script import ScriptDirectory
from legacy_states import STATES, State
from sqlalchemy import Row, text
from sqlalchemy.exc import DBAPIError
from support import dump, execute, psql, query, request, run, signed_in

from oblivion_schema import metadata, user_presence
from oblivion_schema.deploy.upgrade import config
from oblivion_schema.operations import requests_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL


Rows = dict[str, dict[str, Any]]

NOW = "now"
# What a NULL becomes: the column's default; where there is a better time that the row knows, that.
BY_DEFAULT: dict[str, dict[str, Any]] = {
    "call_sessions": {"used_turn": False, "credit_cost": 0},
    "user_accounts": {"subscription_tier": "free"},
}
BEST_TIMES = {
    ("call_sessions", "start_time"): ("created_at", "end_time", "updated_at"),
    ("call_sessions", "created_at"): ("start_time", "end_time", "updated_at"),
    ("user_accounts", "created_at"): ("updated_at",),
    ("user_accounts", "updated_at"): ("created_at",),
}
TABLES = ("call_sessions", "user_presence", "user_accounts", "token_usage", "call_notes", "invoices")


def rows(url: URL) -> dict[str, Rows]:
    """Every row of every table, by its primary key."""
    found = {}
    for table in TABLES:
        if query(url, f"SELECT to_regclass('public.{table}')") != [(None,)]:
            key = {"user_accounts": "user_id", "invoices": "number"}.get(table, "id")
            sql = f"SELECT {key}::text, to_jsonb(t)::text FROM public.{table} AS t"
            found[table] = {str(name): json.loads(str(row)) for name, row in query(url, sql)}
    return found


def columns_of_later_revisions() -> dict[str, set[str]]:
    """Our columns that no revision takes over from tables made by hand."""
    taken_over: dict[str, set[str]] = {}
    for asked in requests_of(ScriptDirectory.from_config(config()).walk_revisions()):
        if asked.function == "begin_adoption":
            taken_over[asked.arguments["table"]] = set(asked.arguments["columns"])
    return {table: {column.name for column in metadata.tables[table].c} - its for table, its in taken_over.items()}


# Those of user_presence that an old row has no value for.
LATER_COLUMNS = {column.name: None for column in user_presence.c if column.nullable}


def adopted(table: str, row: dict[str, Any], now: str, *, default_availability: bool) -> dict[str, Any]:
    """What a row of before has to be afterwards."""
    result = dict(row)
    if table == "user_presence":
        result = LATER_COLUMNS | {"host_id": result.pop("user_id", None) or row["host_id"]} | result
        result["is_available"] = default_availability if row["is_available"] is None else row["is_available"]
        result["updated_at"] = row["updated_at"] or now
        return result
    for column, value in result.items():
        if value is None:
            times = [row[name] for name in BEST_TIMES.get((table, column), ()) if row[name] is not None]
            if column in BY_DEFAULT.get(table, {}):
                result[column] = BY_DEFAULT[table][column]
            elif (table, column) in BEST_TIMES or (table, column) == ("token_usage", "timestamp"):
                result[column] = times[0] if times else now
    if table == "call_sessions" and row["updated_at"] is None:
        known = [row[name] for name in ("start_time", "end_time", "created_at") if row[name] is not None]
        result["updated_at"] = max(known) if known else now
    return result


@pytest.fixture(params=["superuser", "supabase-old"])
def sort(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def adopted_url(new_sort: Callable[..., URL], adopted_state: Callable[..., URL], sort: str, state: State) -> URL:
    """A database in a state that people made, with awkward rows, and with what they added of their own; upgraded."""
    return new_sort(copy_of=adopted_state(sort, state))


@pytest.fixture(params=STATES, ids=str)
def state(request: pytest.FixtureRequest) -> State:
    found: State = request.param
    return found


@pytest.mark.server
def test_state_is_adopted_with_every_row(
    adopted_url: URL, state_by_hand: Callable[..., URL], sort: str, state: State
) -> None:
    before = rows(state_by_hand(sort, state))
    default = [("true",)] if state.has_hosts else [("false",)]
    after = rows(adopted_url)
    [(now,)] = query(adopted_url, "SELECT to_jsonb(max(logged_at))#>>'{}' FROM oblivion.adoption_log") or [(None,)]
    moved = {
        str(row["id"]): row
        for (row,) in query(adopted_url, "SELECT was FROM oblivion.adoption_log WHERE kind = 'row'")
        if isinstance(row, dict)
    }
    for table, its in before.items():
        kept = {
            key: adopted(table, row, str(now), default_availability=default == [("true",)]) for key, row in its.items()
        }
        for key in moved if table == "user_presence" else ():
            # It went as it was, but for the new name and the new column.
            was = {"host_id" if name == "user_id" else name: value for name, value in its[key].items()}
            assert moved[key] == {"room_token": None} | was
            del kept[key]
        if table == "token_usage":
            for key, row in its.items():
                if row["timestamp"] is None and row["session_id"] in before.get("call_sessions", {}):
                    call = before["call_sessions"][row["session_id"]]
                    kept[key]["timestamp"] = call["end_time"] or call["start_time"]
        assert {key: after[table][key] for key in its if key in kept} == kept, table
    if not state.has_hosts and state.has_calls:
        assert {row["room_id"] for row in after["user_presence"].values()} >= {"newest", "room"}
        assert len(moved) == 4
    opened = "SELECT user_id, kind, tokens, balance, session_id, key FROM token_ledger ORDER BY user_id"
    assert query(adopted_url, opened) == [
        (name, "opening", account["tokens_remaining"], account["tokens_remaining"], None, None)
        for name, account in sorted(after["user_accounts"].items())
    ]
    assert run("check", url=adopted_url).status == 0
    verified = run("verify", url=adopted_url)
    assert verified.status == 0, verified.out
    clients_go_on(adopted_url)


def clients_go_on(url: URL) -> None:
    """What the deployed browser clients send, and get."""
    with request(url, "anon") as client:

        def send(sql: str, **values: object) -> Row[Any]:
            return client.execute(text(sql), values).one()

        [call] = send(
            "INSERT INTO call_sessions (room_id, user_id, mode, used_turn, start_time, credit_cost)"
            " VALUES ('r', 'demo_user', 'voice-only', false, now(), 0) RETURNING id"
        )
        assert send("SELECT room_id FROM active_calls WHERE id = :id", id=call) == ("r",)
        ended = "UPDATE call_sessions SET end_time = now(), used_turn = true WHERE id = :id RETURNING *"
        assert send(ended, id=call).end_time
        [balance] = send("SELECT tokens_remaining FROM user_accounts WHERE user_id = 'demo_user'")
        update = (
            "UPDATE user_accounts SET tokens_remaining = :left WHERE user_id = 'demo_user' RETURNING tokens_remaining"
        )
        assert send(update, left=balance - 4) == (balance - 4,)
        [before] = send("SELECT total_tokens_used FROM user_token_summary WHERE user_id = 'demo_user'")
        send(
            "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)"
            " VALUES ('demo_user', :id, 4, 'voice', true, 61) RETURNING id",
            id=str(call),
        )
        after = "SELECT total_tokens_used FROM user_token_summary WHERE user_id = 'demo_user'"
        assert send(after) == (before + 4,)
        for free in (True, False):
            presence = send(
                "INSERT INTO user_presence (host_id, is_available, room_id, updated_at)"
                " VALUES ('host', :free, 'r', now()) ON CONFLICT (host_id) DO UPDATE SET host_id = excluded.host_id,"
                " is_available = excluded.is_available, room_id = excluded.room_id, updated_at = excluded.updated_at"
                " RETURNING *",
                free=free,
            )
            assert (presence.is_available, presence.room_id) == (free, "r")
        signed_in = send(
            "INSERT INTO user_accounts (user_id, email, tokens_remaining) VALUES ('demo_user', 'e', 100)"
            " ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id, email = excluded.email,"
            " tokens_remaining = excluded.tokens_remaining RETURNING *"
        )
        assert signed_in.tokens_remaining == 100
        # They know nothing of the ledger, which knows of them.
        of_user = "FROM token_ledger WHERE user_id = 'demo_user'"
        assert send(f"SELECT string_agg(kind, ' ' ORDER BY id) {of_user}") == ("opening direct direct",)
        assert send(f"SELECT sum(tokens), (array_agg(balance ORDER BY id DESC))[1] {of_user}") == (100, 100)


# -- What is not ours, and rows that break a rule


@pytest.fixture
def all_scripts(new_sort: Callable[..., URL], state_by_hand: Callable[..., URL]) -> URL:
    """A database in which every script ran, with rows, and with what somebody added."""
    [state] = (state for state in STATES if state.name == "presence fixed and safe, billing")
    return new_sort(copy_of=state_by_hand("superuser", state))


NOT_OURS = (
    "check constraint known_role on public.user_accounts",
    "column public.call_sessions.rating",
    "column public.user_accounts.role",
    "index public.calls_by_rating on public.call_sessions",
    'policy "Staff reads accounts" on public.user_accounts',
    'policy "Support reads calls" on public.call_sessions',
    "table public.call_notes",
    "table public.invoices",
    "view public.calls_now",
)


def test_what_is_not_ours_stays_and_is_listed_once(all_scripts: URL, caplog: pytest.LogCaptureFixture) -> None:
    grants = "SELECT relname, relacl::text FROM pg_class WHERE relacl::text LIKE '%pg_monitor%' ORDER BY 1"
    theirs = "(pg_monitor=[^,}]*)"
    before = query(all_scripts, f"SELECT relname::text, substring(relacl::text, '{theirs}') FROM ({grants}) AS g")
    assert run("upgrade", "head", url=all_scripts).status == 0
    assert (
        query(all_scripts, f"SELECT relname::text, substring(relacl::text, '{theirs}') FROM ({grants}) AS g") == before
    )
    said = caplog.text
    for name in NOT_OURS[:6]:
        assert said.count(name) == 1, name
    caplog.clear()
    assert run("check", url=all_scripts).status == 0
    [line] = [message for message in caplog.messages if message.startswith("Not ours, left alone: ")]
    assert sorted(line.removeprefix("Not ours, left alone: ").split(", ")) == sorted(NOT_OURS)
    execute(all_scripts, "CREATE POLICY later ON call_sessions USING (true)")
    assert "policy later on public.call_sessions is in neither" in run("check", url=all_scripts).error


WITHOUT_RULE = {
    "check": (
        (
            "ALTER TABLE user_accounts DROP CONSTRAINT positive_tokens;"
            " UPDATE user_accounts SET tokens_remaining = -7 WHERE user_id IN ('demo_user', 'spent')"
        ),
        "user_accounts.positive_tokens",
        "2 old rows break it (user_id demo_user, spent)",
        "UPDATE user_accounts SET tokens_remaining = 0 WHERE tokens_remaining < 0",
    ),
    "foreign key": (
        (
            "ALTER TABLE token_usage DROP CONSTRAINT fk_token_usage_user_id;"
            " UPDATE token_usage SET user_id = 'gone' WHERE session_id = ''"
        ),
        "token_usage.fk_token_usage_user_id",
        "1 old rows break it (id 00000000-0000-4000-8000-000000000204)",
        "DELETE FROM token_usage WHERE user_id = 'gone'",
    ),
    "name of PostgreSQL's own": (
        (
            "ALTER TABLE call_sessions DROP CONSTRAINT call_sessions_mode_check;"
            " UPDATE call_sessions SET mode = 'screen' WHERE credit_cost = 1.2"
        ),
        "call_sessions.call_sessions_mode_check",
        "1 old rows break it (id 00000000-0000-4000-8000-000000000001)",
        "UPDATE call_sessions SET mode = 'video'",
    ),
}


@pytest.mark.parametrize("case", WITHOUT_RULE.values(), ids=WITHOUT_RULE)
@pytest.mark.few(case=0)
def test_row_that_breaks_a_rule_stays_and_is_named_until_it_is_mended(
    all_scripts: URL, caplog: pytest.LogCaptureFixture, case: tuple[str, str, str, str]
) -> None:
    sql, constraint, broken, mend = case
    execute(all_scripts, sql)
    before = rows(all_scripts)
    assert run("upgrade", "head", url=all_scripts).status == 0
    table, _, name = constraint.partition(".")
    assert f"{name} on public.{table}: Rows break it: it holds for new ones" in caplog.text
    assert rows(all_scripts)[table].keys() == before[table].keys()
    assert run("check", url=all_scripts).status == 0
    assert f"{name} on public.{table} (NOT VALID: oblivion-schema verify names the rows" in caplog.text

    def failed() -> list[str]:
        return [line for line in run("verify", url=all_scripts).out.splitlines() if line.startswith("FAIL")]

    validate = f"ALTER TABLE public.{table} VALIDATE CONSTRAINT {name}"
    assert failed() == [f"FAIL  constraint {constraint}: {broken}: correct them, then {validate}"]
    execute(all_scripts, mend)
    assert failed() == [f"FAIL  constraint {constraint}: is NOT VALID, but no row breaks it any more: {validate}"]
    execute(all_scripts, validate)
    assert failed() == []
    assert run("check", url=all_scripts).status == 0


def test_rule_that_was_not_valid_before_is_valid_where_all_rows_keep_it(all_scripts: URL) -> None:
    rule = "CHECK (duration_seconds IS NULL OR duration_seconds >= 0) NOT VALID"
    execute(all_scripts, "ALTER TABLE token_usage DROP CONSTRAINT valid_duration")
    execute(all_scripts, f"ALTER TABLE token_usage ADD CONSTRAINT valid_duration {rule}")
    assert run("upgrade", "head", url=all_scripts).status == 0
    assert run("verify", url=all_scripts).status == 0


REFUSED = {
    "columns": (
        "CREATE TABLE call_sessions (id integer)",
        "public.call_sessions cannot be taken over: it lacks created_at, credit_cost,",
    ),
    "rates": ("CREATE TABLE token_rates ()", "public.token_rates cannot be taken over: it lacks effective_from, mode,"),
    "view": ("CREATE VIEW user_presence AS SELECT 1", "user_presence cannot be taken over: it is no ordinary table"),
    "type": (
        "{all}; ALTER TABLE token_usage ALTER session_id TYPE varchar(99)",
        "token_usage cannot be taken over: its session_id is character varying(99), not text",
    ),
    "referred to": (
        (
            "{all}; CREATE TABLE seats (presence uuid REFERENCES user_presence);"
            " DROP INDEX idx_user_presence_host_unique;"
            " INSERT INTO user_presence (host_id, room_id) VALUES ('host', 'again')"
        ),
        "user_presence has hosts with several rows, and another table refers to them",
    ),
    "view with a reader": (
        (
            "{all}; DROP VIEW calls_now, active_calls; CREATE VIEW active_calls AS SELECT id, room_id, mode, used_turn,"
            " start_time, 1 AS duration FROM call_sessions; CREATE VIEW readers AS SELECT * FROM active_calls"
        ),
        "active_calls has columns of other types than ours, and something reads it. Drop what reads it",
    ),
}


@pytest.mark.parametrize(("sql", "said"), REFUSED.values(), ids=REFUSED)
@pytest.mark.few(sql=(0, 2, 5))
def test_what_cannot_be_taken_over_is_refused_before_anything_changes(empty: URL, sql: str, said: str) -> None:
    [state] = (state for state in STATES if state.name == "presence fixed and safe, billing")
    execute(empty, sql.replace("{all}", state.script(rows=True, by_hand=True).rstrip().rstrip(";")))
    before = dump(empty)
    error = run("upgrade", "head", url=empty).error
    assert said in error
    assert "Nothing was changed" in error
    assert dump(empty) == before


def test_table_of_another_role_is_refused_with_its_name(new_database: Callable[..., URL], server: URL) -> None:
    url = new_database(owner=True)
    execute(server.set(database=url.database), STATES[1].script())
    assert f"it belongs to {server.username}, who has to run this" in run("upgrade", "head", url=url).error


STRANGE = {
    "view with other types": "DROP VIEW calls_now, active_calls; CREATE VIEW active_calls AS SELECT id, room_id, mode,"
    " used_turn, start_time, 1 AS duration FROM call_sessions; GRANT SELECT ON active_calls TO pg_monitor",
    "forced row level security": "ALTER TABLE user_accounts FORCE ROW LEVEL SECURITY",
    "trigger that refuses": "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
    " CREATE TRIGGER no BEFORE UPDATE ON call_sessions FOR EACH ROW EXECUTE FUNCTION no();"
    " ALTER TABLE call_sessions ENABLE ALWAYS TRIGGER no",
    "unique constraint for the index": "DROP INDEX idx_user_presence_host_unique;"
    " ALTER TABLE user_presence ADD CONSTRAINT idx_user_presence_host_unique UNIQUE (host_id)",
    "altered policy of the scripts": 'ALTER POLICY "Allow all operations on token_usage" ON token_usage USING (false)',
    "storage and identity": "ALTER TABLE token_usage SET (fillfactor = 70), REPLICA IDENTITY FULL",
    "realtime": "CREATE PUBLICATION supabase_realtime FOR TABLE user_presence, token_usage",
    "function of that name in use": "CREATE TABLE theirs (updated_at timestamptz); CREATE TRIGGER stamp BEFORE UPDATE"
    " ON theirs FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()",
    "rule": "CREATE RULE theirs AS ON DELETE TO token_usage DO INSTEAD NOTHING",
    "defaults": "ALTER TABLE user_accounts ALTER tokens_remaining SET DEFAULT 5; ALTER TABLE token_usage ALTER id"
    " DROP DEFAULT; ALTER TABLE user_accounts ALTER tokens_remaining DROP NOT NULL",
    "disabled trigger": "ALTER TABLE user_accounts DISABLE TRIGGER update_user_accounts_updated_at",
}


@pytest.mark.parametrize("sql", STRANGE.values(), ids=STRANGE)
@pytest.mark.few(sql=0)
def test_stranger_database_is_adopted_too(all_scripts: URL, sql: str) -> None:
    execute(all_scripts, sql)
    upgraded = run("upgrade", "head", url=all_scripts)
    assert upgraded.status == 0, upgraded
    checked = run("check", url=all_scripts)
    assert checked.status == 0, checked


def test_adoption_into_the_authenticated_mode_names_policies_that_let_more_through(
    all_scripts: URL, caplog: pytest.LogCaptureFixture
) -> None:
    assert run("-x", "access=authenticated", "upgrade", "head", url=all_scripts).status == 0
    for policy in ("Staff reads accounts on user_accounts", "Support reads calls on call_sessions"):
        assert f"Policy {policy} is not ours, and allows access in both modes" in caplog.messages
    assert run("check", url=all_scripts).status == 0
    with request(all_scripts, "anon") as visitor, pytest.raises(DBAPIError, match="permission denied"):
        visitor.execute(text("SELECT * FROM token_usage"))


@pytest.mark.parametrize("forced", ["", "FORCE"], ids=["", "forced"])
@pytest.mark.few(forced="FORCE")
def test_host_id_that_somebody_put_beside_user_id_takes_it_over(empty: URL, forced: str) -> None:
    [state] = (state for state in STATES if state.name == "presence safe only")
    execute(empty, state.script(rows=True))
    execute(empty, "ALTER TABLE user_presence ADD host_id text")
    if forced:
        execute(empty, "ALTER TABLE user_presence FORCE ROW LEVEL SECURITY")
    newest = query(empty, "SELECT id, updated_at FROM user_presence WHERE room_id = 'newest'")
    assert run("upgrade", "head", url=empty).status == 0
    assert query(empty, "SELECT id, updated_at FROM user_presence WHERE host_id = 'host'") == newest
    hosts = query(empty, "SELECT host_id FROM user_presence ORDER BY 1")
    assert hosts == [("alone",), ("host",), ("tie",), ("timeless",)]
    assert run("check", url=empty).status == 0


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_token_usage_session_id'::regclass",
        (
            "DROP INDEX idx_user_presence_host_unique;"
            " CREATE INDEX idx_user_presence_host_unique ON user_presence (host_id)"
        ),
        "DROP INDEX idx_token_usage_mode; CREATE INDEX idx_token_usage_mode ON call_notes (note)",
    ],
    ids=["interrupted build", "not unique", "name of another table's"],
)
@pytest.mark.few(sql=0)
@pytest.mark.server
def test_index_of_our_name_that_does_not_serve_is_made_anew(all_scripts: URL, sql: str) -> None:
    execute(all_scripts, sql)
    assert run("upgrade", "head", url=all_scripts).status == 0
    assert run("check", url=all_scripts).status == 0
    assert run("verify", url=all_scripts).status == 0
    if "call_notes" in sql:
        assert query(all_scripts, "SELECT to_regclass('idx_token_usage_mode') IS NOT NULL") == [(True,)]


# -- By script, and back


def test_downgrade_of_a_closed_database_leaves_it_closed(all_scripts: URL) -> None:
    assert run("-x", "access=authenticated", "upgrade", "head", url=all_scripts).status == 0
    for revision, own_rows in {"003": 1, "002": 0, "base": 0}.items():
        assert run("downgrade", revision, url=all_scripts).status == 0
        with request(all_scripts, "authenticated", signed_in("spent")) as user:
            assert user.scalar(text("SELECT count(*) FROM user_accounts")) == own_rows


def test_usage_without_accounts_is_adopted_and_given_back(all_scripts: URL) -> None:
    execute(all_scripts, "DROP TABLE invoices; DROP TABLE user_accounts CASCADE")
    assert run("upgrade", "head", url=all_scripts).status == 0
    before = rows(all_scripts)["token_usage"]
    downgraded = run("-x", "drop-data=yes", "downgrade", "base", url=all_scripts)
    assert downgraded.status == 0, downgraded
    assert rows(all_scripts)["token_usage"] == before


@pytest.mark.server
def test_script_adopts_as_the_upgrade_does(all_scripts: URL, new_database: Callable[..., URL]) -> None:
    other = new_database()
    [state] = (state for state in STATES if state.name == "presence fixed and safe, billing")
    execute(other, state.script(rows=True, by_hand=True))
    assert run("upgrade", "head", url=all_scripts).status == 0
    psql(other, run("upgrade", "head", "--sql").out)
    assert dump(other) == dump(all_scripts)


@pytest.mark.server
def test_downgrade_leaves_rows_and_lets_clients_go_on(
    adopted_url: URL, state_by_hand: Callable[..., URL], sort: str, state: State
) -> None:
    by_scripts = rows(state_by_hand(sort, state)).keys()
    later = columns_of_later_revisions()

    def kept() -> dict[str, Rows]:
        """The rows, without the columns that a revision after 003 added, which the downgrade drops."""
        return {
            table: {
                key: {name: value for name, value in row.items() if name not in later.get(table, ())}
                for key, row in its.items()
            }
            for table, its in rows(adopted_url).items()
            if table in by_scripts
        }

    between = kept()
    moved = query(adopted_url, "SELECT was::text FROM oblivion.adoption_log WHERE kind = 'row' ORDER BY id")
    for _ in range(2):
        downgraded = run("downgrade", "base", url=adopted_url)
        assert downgraded.status == 0, downgraded
        assert kept() == between
        assert query(adopted_url, "SELECT to_regnamespace('oblivion')") == [(None,)]
        if moved:
            assert query(adopted_url, "SELECT was::text FROM public.adoption_log ORDER BY id") == moved
        for table in by_scripts & {"call_sessions", "token_usage", "user_accounts", "user_presence"}:
            with request(adopted_url, "anon") as connection:
                assert connection.scalar(text(f"SELECT count(*) FROM {table}")) == len(between[table])
        assert run("upgrade", "head", url=adopted_url).status == 0
        assert kept() == between
        assert query(adopted_url, "SELECT was::text FROM oblivion.adoption_log WHERE kind = 'row' ORDER BY id") == moved
    assert run("check", url=adopted_url).status == 0
