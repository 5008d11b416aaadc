"""Who may do what, in each mode: every privilege of every role, what users reach, and the switches."""

from __future__ import annotations

import itertools
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, NullPool, Row, create_engine, text
from sqlalchemy.exc import DBAPIError
from support import (
    API_ROLES,
    NAMES_IT,
    PROJECT,
    REVISIONS,
    declared,
    dump,
    execute,
    libpq,
    psql,
    query,
    request,
    run,
    signed_in,
    spawn,
)

import oblivion_schema
from oblivion_schema import metadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL, Engine

    from oblivion_schema.tables.access import Mode, PageBilling

MODES: tuple[Mode, ...] = ("open", "authenticated")
PAGES: tuple[PageBilling, ...] = ("trusted", "metered")
ALL_MODES = [(mode, pages) for mode in MODES for pages in PAGES]
IN_ALL_MODES = pytest.mark.parametrize(("mode", "pages"), ALL_MODES, ids=["-".join(modes) for modes in ALL_MODES])
PUBLIC = [name for name, table in metadata.tables.items() if table.schema is None]

NONE = ""
READ = "SELECT"
WRITE = "SELECT, INSERT, UPDATE, DELETE"
EXECUTE = "EXECUTE"
START_A_CALL = (
    "SELECT, INSERT (room_id), INSERT (start_time), INSERT (mode), INSERT (used_turn), INSERT (credit_cost),"
    " INSERT (user_id)"
)
# What pages of signed-in users need besides, if they are metered: it is let through to no effect.
SIGN_IN_AND_BILL = (
    "SELECT, INSERT (user_id), INSERT (tokens_remaining), INSERT (email),"
    " UPDATE (user_id), UPDATE (tokens_remaining), UPDATE (email)"
)
END_A_CALL = "UPDATE (end_time), UPDATE (used_turn), UPDATE (credit_cost)"
LOG_USAGE = (
    "SELECT, INSERT (user_id), INSERT (session_id), INSERT (tokens_used), INSERT (timestamp), INSERT (mode),"
    " INSERT (used_turn), INSERT (duration_seconds)"
)

# What PUBLIC, anon, authenticated and service_role may do with each object: in the open mode, in the authenticated one,
# and in that one if pages are metered, where that differs.
MATRIX = {
    "schema public": (("USAGE",) * 4, ("USAGE",) * 4),
    "schema oblivion": ((NONE,) * 4, (NONE,) * 4),
    "table public.user_accounts": (
        (NONE, WRITE, WRITE, WRITE),
        (NONE, NONE, "SELECT, UPDATE (email)", WRITE),
        (NONE, NONE, SIGN_IN_AND_BILL, WRITE),
    ),
    "table public.call_sessions": (
        (NONE, WRITE, WRITE, WRITE),
        (NONE, NONE, START_A_CALL, WRITE),
        (NONE, NONE, f"{START_A_CALL}, {END_A_CALL}", WRITE),
    ),
    "table public.token_usage": (
        (NONE, WRITE, WRITE, WRITE),
        (NONE, NONE, READ, WRITE),
        (NONE, NONE, LOG_USAGE, WRITE),
    ),
    "table public.user_presence": ((NONE, WRITE, WRITE, WRITE), (NONE, NONE, WRITE, WRITE)),
    "table public.token_rates": ((NONE, READ, READ, WRITE), (NONE, READ, READ, WRITE)),
    "table oblivion.adoption_log": ((NONE,) * 4, (NONE,) * 4),
    "sequence oblivion.adoption_log_id_seq": ((NONE,) * 4, (NONE,) * 4),
    "table public.token_ledger": ((NONE, READ, READ, READ), (NONE, NONE, READ, READ)),
    "sequence public.token_ledger_id_seq": ((NONE,) * 4, (NONE,) * 4),
    "view oblivion.balance_audit": ((NONE,) * 4, (NONE,) * 4),
    "view oblivion.missing_openings": ((NONE,) * 4, (NONE,) * 4),
    "table oblivion.call_meters": ((NONE,) * 4, (NONE,) * 4),
    "view oblivion.live_calls": ((NONE,) * 4, (NONE,) * 4),
    "view oblivion.page_calls": ((NONE,) * 4, (NONE,) * 4),
    "table oblivion.sign_up": ((NONE,) * 4, (NONE,) * 4),
    "view oblivion.callers_without_account": ((NONE,) * 4, (NONE,) * 4),
    "table oblivion.call_segments": ((NONE,) * 4, (NONE,) * 4),
    "table oblivion.billing_incidents": ((NONE,) * 4, (NONE,) * 4),
    "sequence oblivion.billing_incidents_id_seq": ((NONE,) * 4, (NONE,) * 4),
    # Read by whoever may query a report, and guarded by row level security; the schema is closed.
    **{
        f"table oblivion.{name}": ((READ,) * 4,) * 2
        for name in ("daily_usage", "user_usage", "usage_deltas", "daily_calls", "call_deltas", "backfills")
    },
    "view oblivion.user_usage_drift": ((NONE,) * 4,) * 2,
    **{f"view oblivion.{name}": ((READ,) * 4,) * 2 for name in ("daily_usage_drift", "daily_calls_drift")},
    "table oblivion.alembic_version": ((NONE,) * 4, (NONE,) * 4),
    "view public.active_calls": ((NONE, READ, READ, READ), (NONE, NONE, READ, READ)),
    "view public.daily_billing_summary": ((NONE, READ, READ, READ), (NONE, NONE, READ, READ)),
    "view public.daily_token_usage": ((NONE, READ, READ, READ), (NONE, NONE, READ, READ)),
    "view public.user_token_summary": ((NONE, READ, READ, READ), (NONE, NONE, READ, READ)),
    "function public.host_presence(text, interval)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function public.update_updated_at_column()": ((NONE,) * 4,) * 2,
    "function public.update_user_presence_updated_at()": ((NONE,) * 4,) * 2,
    "function oblivion.host_presence(text, interval)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function oblivion.open_access()": ((EXECUTE,) * 4,) * 2,
    "function oblivion.page_billing()": ((EXECUTE,) * 4,) * 2,
    "function public.page_billing()": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function oblivion.is_service_role()": ((EXECUTE,) * 4,) * 2,
    "function oblivion.current_user_id()": ((EXECUTE,) * 4,) * 2,
    "function oblivion.keeps_account(text, integer, text, timestamp with time zone)": ((EXECUTE,) * 4,) * 2,
    # The token engine: whoever calls, and what the functions that he may call stand on.
    "function public.call_quote(text, text, boolean)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function public.start_call(text, text, text, boolean, text)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function public.tick_call(uuid)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function public.set_call_turn(uuid, boolean)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function public.end_call(uuid)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function public.explain_call(uuid)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function oblivion.call_quote(text, text, boolean, text)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function oblivion.start_call(text, text, text, boolean, text, text)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function oblivion.advance_call(uuid, text, boolean, text)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function oblivion.tick_call(uuid, text)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function oblivion.end_call(uuid, text)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    "function oblivion.explain_call(uuid, text)": ((NONE, EXECUTE, EXECUTE, EXECUTE),) * 2,
    # Whoever is signed in.
    "function public.open_account()": ((NONE, NONE, EXECUTE, NONE),) * 2,
    "function oblivion.open_account()": ((NONE, NONE, EXECUTE, NONE),) * 2,
    # Whoever keeps the books.
    "function public.top_up(text, integer, text)": ((NONE, NONE, NONE, EXECUTE),) * 2,
    "function public.refund_call(uuid, integer, text)": ((NONE, NONE, NONE, EXECUTE),) * 2,
    "function public.burn_calls(integer)": ((NONE, NONE, NONE, EXECUTE),) * 2,
    "function public.reap_stale_calls(interval, integer, interval)": ((NONE, NONE, NONE, EXECUTE),) * 2,
    "function public.settle_calls(integer)": ((NONE, NONE, NONE, EXECUTE),) * 2,
    "function oblivion.top_up(text, integer, text)": ((NONE, NONE, NONE, EXECUTE),) * 2,
    "function oblivion.refund_call(uuid, integer, text)": ((NONE, NONE, NONE, EXECUTE),) * 2,
    "function oblivion.sweep_calls(text, integer, interval, interval)": ((NONE, NONE, NONE, EXECUTE),) * 2,
    # The owner alone, as whom the functions above run.
    "function oblivion.may_act_for(text, text)": ((NONE,) * 4,) * 2,
    "function oblivion.check_key(text, text)": ((NONE,) * 4,) * 2,
    "function oblivion.note_incident(uuid, text, text, text, text)": ((NONE,) * 4,) * 2,
    "function oblivion.note_outcome(oblivion.call_meters, text, timestamp with time zone, boolean, boolean)": (
        (NONE,) * 4,
    )
    * 2,
    "function oblivion.bill_call(oblivion.call_meters, timestamp with time zone, boolean, text)": ((NONE,) * 4,) * 2,
    "function oblivion.turn_call(oblivion.call_meters, boolean, integer, integer, boolean)": ((NONE,) * 4,) * 2,
    "function oblivion.rate_card(text, boolean)": ((NONE,) * 4,) * 2,
    "function oblivion.advance_unmetered_call(uuid, text, text)": ((NONE,) * 4,) * 2,
    "function oblivion.credit_account(text, integer, text, text, uuid, integer)": ((NONE,) * 4,) * 2,
    "function oblivion.trim_ledger(timestamp with time zone)": ((NONE,) * 4,) * 2,
    "function oblivion.fold_charges(timestamp with time zone)": ((NONE,) * 4,) * 2,
    "function oblivion.wrong_ledgers()": ((NONE,) * 4,) * 2,
    "function oblivion.rebuild_ledger()": ((NONE,) * 4,) * 2,
    "function oblivion.restart_identities()": ((NONE,) * 4,) * 2,
    "function oblivion.write_ledger()": ((NONE,) * 4,) * 2,
    "function oblivion.close_ledger()": ((NONE,) * 4,) * 2,
    "function oblivion.guard_metered_call()": ((NONE,) * 4,) * 2,
    "function oblivion.settle_deleted_call()": ((NONE,) * 4,) * 2,
    "function oblivion.correct_meter()": ((NONE,) * 4,) * 2,
    **{
        f"function oblivion.{signature}": ((NONE,) * 4,) * 2
        for signature in (
            "note_usage()",
            "note_calls()",
            "clear_rollups()",
            "fold_usage(integer)",
            "fold_calls(integer)",
            "rebuild_rollups()",
            "backfill()",
            # Pages whose calls are metered.
            "meter_call(uuid, text, text, timestamp with time zone)",
            "is_fresh(oblivion.call_meters)",
            "last_moment(oblivion.call_meters)",
            "unmeter_call(uuid)",
            "is_page()",
            "is_intruder()",
            "refuse_pages()",
            "bar_truncate()",
            "call_id(text)",
            "final_meter(oblivion.call_meters, boolean)",
            "page_lag(oblivion.call_meters, timestamp with time zone)",
            "meter_page_call()",
            "bill_page_call()",
            "update_account()",
            "guard_account()",
            "guard_usage()",
            # Sign-up.
            "allow_sign_up(integer)",
            "make_account(text, text, boolean)",
            "open_account_of_user()",
        )
    },
    **{
        f"function oblivion.{signature}": ((EXECUTE,) * 4,) * 2
        for signature in ("missing_usage()", "missing_calls()", "count_usage(text)")
    },
    "function oblivion.call_amounts(timestamp with time zone, timestamp with time zone, text, boolean, numeric)": (
        (EXECUTE,) * 4,
    )
    * 2,
}

# All that there is, and all that can be granted on it, as each role has it in the end, by whatever way.
PRIVILEGES = """
WITH
role AS (
  SELECT * FROM unnest(ARRAY['public', 'anon', 'authenticated', 'service_role']) WITH ORDINALITY AS r (name, place)
),
object AS (
  SELECT
    concat(
      CASE relkind WHEN 'r' THEN 'table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence'
        ELSE concat('relation of kind ', relkind) END,
      ' ', relnamespace::regnamespace, '.', relname
    ) AS object,
    c.oid, 'relation' AS class,
    ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']
      || CASE WHEN current_setting('server_version_num')::int >= 170000 THEN ARRAY['MAINTAIN'] ELSE '{}' END
      AS privileges
  FROM pg_class AS c
  WHERE relnamespace IN ('public'::regnamespace, 'oblivion'::regnamespace) AND relkind NOT IN ('i', 'I', 'c')
  UNION ALL
  SELECT
    concat('function ', pronamespace::regnamespace, '.', proname, '(', (
      SELECT string_agg(format_type(type, NULL), ', ' ORDER BY place)
      FROM unnest(proargtypes::oid[]) WITH ORDINALITY AS argument (type, place)
    ), ')'),
    oid, 'function', ARRAY['EXECUTE']
  FROM pg_proc
  WHERE pronamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)
  UNION ALL
  SELECT concat('schema ', nspname), oid, 'schema', ARRAY['USAGE', 'CREATE']
  FROM pg_namespace
  WHERE nspname IN ('public', 'oblivion')
),
held AS (
  SELECT object, r.name, r.place, p.place AS rank, 0 AS attnum, p.name AS privilege
  FROM object CROSS JOIN role AS r CROSS JOIN unnest(privileges) WITH ORDINALITY AS p (name, place)
  WHERE CASE class
    WHEN 'relation' THEN has_table_privilege(r.name, object.oid, p.name)
    WHEN 'function' THEN has_function_privilege(r.name, object.oid, p.name)
    ELSE has_schema_privilege(r.name, object.oid, p.name)
  END
  UNION ALL
  SELECT object, r.name, r.place, p.place, attnum, format('%s (%s)', p.name, attname)
  FROM object
  JOIN pg_attribute ON attrelid = object.oid AND attnum > 0 AND NOT attisdropped
  CROSS JOIN role AS r
  CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) WITH ORDINALITY AS p (name, place)
  WHERE class = 'relation' AND has_column_privilege(r.name, object.oid, attnum, p.name)
    AND NOT has_table_privilege(r.name, object.oid, p.name)
)
SELECT object.object, role.name, coalesce(string_agg(privilege, ', ' ORDER BY rank, attnum), '')
FROM object
CROSS JOIN role
LEFT JOIN held ON held.object = object.object AND held.name = role.name
GROUP BY object.object, role.name, role.place
ORDER BY object.object, role.place
"""


@IN_ALL_MODES
@pytest.mark.server
def test_every_role_has_exactly_the_documented_privileges_on_every_object(
    database: URL, mode: Mode, pages: PageBilling
) -> None:
    oblivion_schema.upgrade(database, access=mode, pages=pages)
    found: dict[str, list[object]] = {}
    for name, _, privileges in query(database, PRIVILEGES):
        found.setdefault(str(name), []).append(privileges)
    column = {("authenticated", "trusted"): 1, ("authenticated", "metered"): -1}.get((mode, pages), 0)
    documented = {name: list(by_mode[column]) for name, by_mode in MATRIX.items()}
    other = {name for name in [*found, *documented] if found.get(name) != documented.get(name)}
    assert found == documented, f"write into MATRIX of tests/test_access.py who may do what on each: {sorted(other)}"


# -- What there is to reach in the authenticated mode


@pytest.fixture
def user(closed: URL) -> Iterator[Connection]:
    """A request of the signed-in user `mine`."""
    with request(closed, "authenticated", signed_in("mine")) as connection:
        yield connection


@pytest.fixture
def visitor(closed: URL) -> Iterator[Connection]:
    """A request without a signed-in user."""
    with request(closed, "anon") as connection:
        yield connection


def rows(connection: Connection, sql: str, **values: object) -> list[Row[Any]]:
    return list(connection.execute(text(sql), values))


@pytest.mark.parametrize("table", ["user_accounts", "call_sessions", "token_usage", "user_token_summary"])
def test_user_reads_the_own_rows(user: Connection, table: str) -> None:
    found = rows(user, f"SELECT user_id FROM {table}")
    assert found
    assert set(found) == {("mine",)}


def test_user_sees_in_the_views_what_the_own_rows_give(user: Connection) -> None:
    assert [call.room_id for call in rows(user, "SELECT * FROM active_calls")] == ["room of mine"]
    assert [day.total_calls for day in rows(user, "SELECT * FROM daily_billing_summary")] == [2]
    assert [day.total_tokens for day in rows(user, "SELECT * FROM daily_token_usage")] == [6]


def test_user_changes_the_own_email(user: Connection) -> None:
    updated = rows(user, "UPDATE user_accounts SET email = 'new' WHERE user_id = 'mine' RETURNING *")
    assert [(row.user_id, row.email) for row in updated] == [("mine", "new")]
    assert rows(user, "UPDATE user_accounts SET email = 'new' RETURNING user_id") == [("mine",)], "and no other's"


def test_user_starts_an_own_call_as_clients_do(user: Connection) -> None:
    sql = (
        "INSERT INTO call_sessions (room_id, user_id, mode, used_turn, start_time, credit_cost)"
        " VALUES ('r', 'mine', 'video', false, '2026-03-01', 0) RETURNING id"
    )
    [(call,)] = rows(user, sql)
    assert rows(user, "SELECT id FROM active_calls WHERE id = :id", id=call) == [(call,)]


PRESENCE = (
    "INSERT INTO user_presence (host_id, is_available, room_id, updated_at) VALUES (:host, :free, 'r', :clock)"
    " ON CONFLICT (host_id) DO UPDATE SET host_id = excluded.host_id, is_available = excluded.is_available,"
    " room_id = excluded.room_id, updated_at = excluded.updated_at RETURNING host_id, is_available"
)


@pytest.mark.parametrize("host", ["mine", "new-host"])
def test_host_upserts_the_own_presence_as_clients_do(closed: URL, host: str) -> None:
    with request(closed, "authenticated", signed_in(host)) as connection:
        for free in (True, False):
            assert rows(connection, PRESENCE, host=host, free=free, clock="2026-03-01") == [(host, free)]
        assert [row.host_id for row in rows(connection, "SELECT * FROM user_presence")] == [host]
        assert rows(connection, "DELETE FROM user_presence RETURNING host_id") == [(host,)]


@pytest.mark.parametrize("role", API_ROLES)
def test_everybody_may_ask_whether_a_host_is_there(closed: URL, role: str) -> None:
    with request(closed, role) as connection:
        [host] = rows(connection, "SELECT * FROM host_presence('theirs', '1 day')")
        assert host._fields == ("is_available", "room_id", "updated_at")
        assert (host.is_available, host.room_id) == (True, "room of theirs")
        assert rows(connection, "SELECT * FROM host_presence('nobody')") == []


@pytest.mark.parametrize("role", API_ROLES)
def test_everybody_reads_the_rates(closed: URL, role: str) -> None:
    with request(closed, role) as connection:
        assert len(rows(connection, "SELECT * FROM token_rates")) == 4


def test_service_role_reads_and_writes_everything(closed: URL) -> None:
    """Even where the role does not go past row level security, as it does on Supabase."""
    assert query(closed, "SELECT rolbypassrls FROM pg_roles WHERE rolname = 'service_role'") == [(False,)]
    with request(closed, "service_role") as connection:
        for table in PUBLIC:
            everything = rows(connection, f"SELECT count(*) FROM {table}")
            assert everything == query(closed, f"SELECT count(*) FROM {table}")
        for sql in (
            "INSERT INTO user_accounts (user_id) VALUES ('new')",
            "UPDATE user_accounts SET tokens_remaining = 7, user_id = user_id",
            "INSERT INTO call_sessions (room_id, mode, credit_cost) VALUES ('r', 'video', 5)",
            "UPDATE call_sessions SET end_time = now(), credit_cost = 1",
            "INSERT INTO token_usage VALUES (gen_random_uuid(), 'new', 's', 1, now(), 'video', false)",
            "UPDATE token_usage SET tokens_used = 0",
            "UPDATE user_presence SET room_token = 'x'",
            "INSERT INTO token_rates VALUES ('video', true, '2030-01-01', 9)",
            "UPDATE token_rates SET tokens_per_minute = 5",
            *(f"DELETE FROM {table}" for table in ("token_usage", "user_accounts", "call_sessions", "user_presence")),
            "DELETE FROM token_rates",
        ):
            assert connection.execute(text(sql)).rowcount > 0, sql


# -- Which plan that makes


def plans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from plans(child)


@pytest.fixture
def million(empty: URL) -> URL:
    """A database in which a thousand users have a million rows of usage, in no order."""
    oblivion_schema.upgrade(empty, access="authenticated")
    [(by_user,)] = query(empty, "SELECT indexdef FROM pg_indexes WHERE indexname = 'idx_token_usage_user_date'")
    others = query(empty, "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'idx_token_usage%'")
    execute(  # without what else would be maintained, row by row
        empty,
        f"""
        DROP INDEX {", ".join(str(name) for (name,) in others)};
        ALTER TABLE token_usage DROP CONSTRAINT fk_token_usage_user_id, DROP CONSTRAINT token_usage_pkey;
        INSERT INTO user_accounts (user_id) SELECT 'u' || n FROM generate_series(0, 999) AS n;
        INSERT INTO token_usage (id, user_id, session_id, tokens_used, mode, used_turn, "timestamp")
        SELECT '00000000-0000-0000-0000-000000000000', 'u' || n % 1000, '', 1, 'video', false,
          '2026-01-01'::timestamptz + n * interval '1 second'
        FROM generate_series(1, 1000000) AS n;
        {by_user};
        ANALYZE token_usage;
        """,
    )
    return empty


@pytest.mark.server
@pytest.mark.full
def test_user_reads_the_own_usage_by_its_index_and_no_other_row(million: URL) -> None:
    for plan_cache_mode, sql in itertools.product(
        ["force_custom_plan", "force_generic_plan"],
        [
            "SELECT * FROM token_usage",
            "SELECT sum(tokens_used) FROM token_usage",
            "SELECT * FROM daily_token_usage",
            "SELECT * FROM user_token_summary",
            "SELECT * FROM token_usage WHERE user_id = 'u7'",
        ],
    ):
        with request(million, "authenticated", signed_in("u7")) as connection:
            connection.execute(text(f"SET LOCAL plan_cache_mode = {plan_cache_mode}; PREPARE own AS {sql}"))
            [plan] = connection.scalar(text("EXPLAIN (ANALYZE, FORMAT json) EXECUTE own")) or [{}]
        nodes = list(plans(plan["Plan"]))
        reads = [node for node in nodes if node.get("Relation Name") == "token_usage" and node["Actual Loops"]]
        assert [node["Node Type"] for node in reads] in (["Bitmap Heap Scan"], ["Index Scan"]), (sql, plan)
        assert "idx_token_usage_user_date" in {node.get("Index Name") for node in nodes}, (sql, plan)
        assert [node["Actual Rows"] for node in reads] == [1000], (sql, plan)
        assert [node.get("Rows Removed by Filter", 0) for node in reads] == [0], (sql, plan)


@pytest.mark.parametrize("claims", [signed_in("mine"), "not json"])
@pytest.mark.server
def test_query_that_may_run_in_parallel_is_answered(closed: URL, claims: str) -> None:
    """Up to PostgreSQL 16 a function that handles errors may not be called there."""
    version = query(closed, "SELECT current_setting('server_version_num')::integer >= 160000")
    force = "debug_parallel_query" if version == [(True,)] else "force_parallel_mode"
    with request(closed, "authenticated", claims) as connection:
        for setting in (
            *("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"),
            "min_parallel_index_scan_size",
        ):
            connection.execute(text(f"SET LOCAL {setting} = 0"))
        connection.execute(text(f"SET LOCAL {force} = on"))
        for name in PUBLIC:
            rows(connection, f"SELECT * FROM {name}")
            rows(connection, f"SELECT count(*) FROM {name}")


@pytest.mark.parametrize("role", ["authenticated", "service_role"])
@pytest.mark.server
def test_plan_for_who_may_read_everything_has_no_filter(upgraded: URL, role: str) -> None:
    with request(upgraded, role) as connection:
        [plan] = connection.scalar(text("EXPLAIN (VERBOSE, FORMAT json) SELECT * FROM token_usage"))
        assert "Filter" not in plan["Plan"]
        assert "Plans" not in plan["Plan"]


# -- The switch


def test_access_says_which_mode_there_is_and_switches(upgraded: URL) -> None:
    assert run("access", url=upgraded).out == "open\n"
    before = dump(upgraded, numbers=False)
    for _ in range(2):
        assert run("access", "authenticated", url=upgraded).out == "authenticated\n"
        assert run("access", url=upgraded).out == "authenticated\n"
    assert "ok    access authenticated" in run("verify", url=upgraded).out
    assert run("verify", url=upgraded).status == 0
    assert run("access", "open", url=upgraded).out == "open\n"
    assert dump(upgraded, numbers=False) == before


# Each mode of each switch, the other mode, and the access mode beside a switch of pages.
SWITCHES = [
    ("access", "open", "authenticated"),
    ("access", "authenticated", "open"),
    ("pages", "trusted", "metered"),
    ("pages", "metered", "trusted"),
]


@pytest.mark.parametrize(
    ("command", "mode", "other"), SWITCHES, ids=[f"{command} {mode}" for command, mode, _ in SWITCHES]
)
@pytest.mark.parametrize("beside", ["first", "second"])
@pytest.mark.few(beside="second", mode=("authenticated", "metered"))
def test_sql_of_the_switch_does_the_same(upgraded: URL, command: str, mode: str, other: str, beside: str) -> None:
    if beside == "second":  # the switch of the other kind is on
        settled = ("pages", "metered") if command == "access" else ("access", "authenticated")
        assert run(*settled, url=upgraded).status == 0
    assert run(command, mode, url=upgraded).status == 0
    expected = dump(upgraded)
    assert run(command, other, url=upgraded).status == 0
    assert dump(upgraded) != expected
    printed = run(command, mode, "--sql").out
    psql(upgraded, printed)
    assert dump(upgraded) == expected
    assert "BEGIN;" not in printed, "one statement, which nothing can cut in two"


def test_each_switch_keeps_the_other_mode_and_gives_exact_grants(
    upgraded: URL, upgraded_sort: Callable[..., URL]
) -> None:
    """On each way from one of the four combinations to another, the database becomes what an upgrade makes of it."""
    made = {
        f"{mode} {pages}": dump(upgraded_sort("superuser", "-x", f"access={mode}", "-x", f"pages={pages}"))
        for mode, pages in ALL_MODES
    }
    assert len(set(made.values())) == len(ALL_MODES)
    state = {"access": "open", "pages": "trusted"}
    round_trip = ("metered", "authenticated", "trusted", "open")
    back = ("authenticated", "metered", "open", "trusted")
    for mode in (*round_trip, *back):
        command = "pages" if mode in PAGES else "access"
        for _ in range(2):  # the second time changes nothing
            assert run(command, mode, url=upgraded).out == f"{mode}\n"
            state[command] = mode
            assert dump(upgraded) == made[" ".join(state.values())], state
        assert query(upgraded, "SELECT public.page_billing()") == [(state["pages"],)]


def test_pages_says_how_the_switch_is_meant(upgraded: URL) -> None:
    assert run("pages", "metered", url=upgraded).out == "metered\n"
    assert "ok    access open" in run("verify", url=upgraded).out
    assert run("verify", url=upgraded).status == 0
    assert query(upgraded, "SELECT oblivion.open_access()") == [(True,)], "access is another matter"


MODES_GO_WITH_UPGRADES = "-x access=... and -x pages=... go with upgrade head only"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("access", "something"),
            "access something: the modes are open (everybody may read and write) and authenticated",
        ),
        (("access", "something", "--sql"), "access something: the modes are open"),
        (("access", "--sql"), "access open --sql or access authenticated --sql"),
        (("-x", "access=closed", "upgrade", "head"), "-x access=closed: the modes are open"),
        (("-x", "access=", "upgrade", "head"), "-x access=: the modes are open"),
        (("-x", "access=open", "upgrade", "001"), MODES_GO_WITH_UPGRADES),
        (("-x", "access=open", "upgrade", "+1"), MODES_GO_WITH_UPGRADES),
        (("-x", "access=open", "downgrade", "base"), MODES_GO_WITH_UPGRADES),
        (("-x", "access=open", "check"), MODES_GO_WITH_UPGRADES),
        (("-x", "access=open", "verify"), MODES_GO_WITH_UPGRADES),
        (("-x", "access=open", "access", "authenticated"), MODES_GO_WITH_UPGRADES),
        (("access", "some\nthing"), "access some thing: the modes are open"),
        (("-x", "access=open", "upgrade", "001:002", "--sql"), MODES_GO_WITH_UPGRADES),
        (("pages", "something"), "pages something: pages are trusted (they bill their calls by themselves) or metered"),
        (("pages", "Metered", "--sql"), "pages Metered: pages are trusted"),
        (("pages", "--sql"), "pages metered --sql or pages trusted --sql"),
        (("-x", "pages=", "upgrade", "head"), "-x pages=: pages are trusted"),
        (("-x", "pages=metered", "upgrade", "003"), MODES_GO_WITH_UPGRADES),
        (("-x", "pages=metered", "downgrade", "base"), MODES_GO_WITH_UPGRADES),
        (("-x", "pages=metered", "access", "open"), MODES_GO_WITH_UPGRADES),
        (("-x", "pages=metered", "pages", "trusted"), MODES_GO_WITH_UPGRADES),
    ],
)
def test_wrong_mode_or_command_is_refused_by_name(
    as_made: tuple[URL, str], arguments: tuple[str, ...], message: str
) -> None:
    url, before = as_made
    assert message in run(*arguments, url=url).error
    assert dump(url) == before


@pytest.mark.parametrize("mode", ["trusted", "metered"])
def test_switch_of_pages_needs_an_upgraded_database(empty: URL, mode: str) -> None:
    assert "no revision was applied. Upgrade it first" in run("pages", mode, url=empty).error
    assert run("upgrade", "003", url=empty).status == 0
    assert "The database is at 003, the code at" in run("pages", mode, url=empty).error


def test_switch_needs_an_upgraded_database(empty: URL) -> None:
    assert "no revision was applied. Upgrade it first" in run("access", "authenticated", url=empty).error
    assert "The database has no access mode yet: upgrade it first" in run("access", url=empty).error
    assert run("upgrade", "002", url=empty).status == 0
    assert "The database is at 002, the code at" in run("access", "authenticated", url=empty).error


@pytest.mark.parametrize("switch", [("access", "authenticated"), ("pages", "metered")], ids=" ".join)
def test_only_the_owner_switches(upgraded: URL, switch: tuple[str, str]) -> None:
    before = dump(upgraded)
    error = run(*switch, url=upgraded.set(username="authenticator", password="authenticator")).error
    assert "This role may not read oblivion.alembic_version" in error
    execute(upgraded, "GRANT USAGE ON SCHEMA oblivion TO authenticator")
    execute(upgraded, "GRANT SELECT ON oblivion.alembic_version TO authenticator")
    error = run(*switch, url=upgraded.set(username="authenticator", password="authenticator")).error
    assert "run this as the owner of that object" in error
    execute(upgraded, "REVOKE ALL ON SCHEMA oblivion FROM authenticator")
    execute(upgraded, "REVOKE ALL ON oblivion.alembic_version FROM authenticator")
    assert dump(upgraded) == before


@pytest.mark.parametrize("offline", [False, True], ids=["online", "offline"])
@IN_ALL_MODES
@pytest.mark.few(mode="authenticated", pages="metered")
def test_upgrade_sets_the_modes_that_it_is_told(empty: URL, mode: Mode, pages: PageBilling, *, offline: bool) -> None:
    def upgrade(mode: str, pages: str) -> None:
        modes = ("-x", f"access={mode}", "-x", f"pages={pages}")
        if offline:
            psql(empty, run(*modes, "upgrade", "head", "--sql").out)
        else:
            assert run(*modes, "upgrade", "head", url=empty).status == 0

    def found() -> tuple[object, ...]:
        [modes] = query(empty, "SELECT oblivion.open_access(), public.page_billing()")
        return modes

    upgrade(mode, pages)
    assert found() == (mode == "open", pages)
    assert run("check", url=empty).status == 0
    if not offline:  # at the newest revision there is nothing left to upgrade, and yet modes to set
        [other] = set(PAGES) - {pages}
        assert run("-x", f"pages={other}", "upgrade", "head", url=empty).status == 0
        assert found() == (mode == "open", other)
        assert run("check", url=empty).status == 0
        [other_mode] = set(MODES) - {mode}
        upgrade(other_mode, pages)
        assert found() == (other_mode == "open", pages)
        assert run("check", url=empty).status == 0


@pytest.mark.full
def test_pages_begin_anew_where_the_engine_was_taken_away(empty: URL) -> None:
    assert run("-x", "access=authenticated", "-x", "pages=metered", "upgrade", "head", url=empty).status == 0
    run_again(empty)
    assert query(empty, "SELECT oblivion.open_access(), public.page_billing()") == [(False, "trusted")]
    assert run("check", url=empty).status == 0


def test_mode_outlives_revisions_that_are_run_again(empty: URL) -> None:
    assert run("-x", "access=authenticated", "upgrade", "head", url=empty).status == 0
    before = dump(empty)
    assert run("upgrade", "head", url=empty).status == 0
    run_again(empty)
    assert run("access", url=empty).out == "authenticated\n"
    assert dump(empty) == before


def run_again(url: URL) -> None:
    """Run the revisions that take over what is there, the first three, over what they made; then the later ones."""
    assert run("downgrade", "003", url=url).status == 0
    execute(url, "DELETE FROM oblivion.alembic_version")
    assert run("upgrade", "head", url=url).status == 0


def test_create_all_leaves_the_modes_as_they_are(open_to_both: URL) -> None:
    assert run("access", "authenticated", url=open_to_both).status == 0
    assert run("pages", "metered", url=open_to_both).status == 0
    before = dump(open_to_both)
    engine = create_engine(open_to_both, poolclass=NullPool)
    metadata.create_all(engine)
    assert run("access", url=open_to_both).out == "authenticated\n"
    assert query(open_to_both, "SELECT public.page_billing()") == [("metered",)]
    assert dump(open_to_both) == before


@IN_ALL_MODES
@pytest.mark.few(mode="authenticated", pages="metered")
@pytest.mark.server
def test_check_is_clean_in_all_modes(upgraded_database: URL, mode: Mode, pages: PageBilling) -> None:
    assert run("access", mode, url=upgraded_database).status == 0
    assert run("pages", pages, url=upgraded_database).status == 0
    assert run("check", url=upgraded_database).status == 0
    assert run("verify", url=upgraded_database).status == 0


def test_check_sees_what_is_granted_beyond_the_mode(upgraded: URL) -> None:
    assert run("access", "authenticated", url=upgraded).status == 0
    execute(
        upgraded, "GRANT SELECT ON user_accounts TO anon; REVOKE UPDATE (email) ON user_accounts FROM authenticated"
    )
    error = run("check", url=upgraded).error
    assert "grant SELECT on table public.user_accounts to anon is not in the metadata" in error
    assert "grant UPDATE (email) on table public.user_accounts to authenticated is missing" in error


def test_check_sees_what_pages_may_do_in_another_mode(upgraded: URL) -> None:
    execute(upgraded, run("access", "authenticated", "--sql").out)
    body = "LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = '' RETURN"
    execute(upgraded, f"CREATE OR REPLACE FUNCTION oblivion.page_billing() RETURNS text {body} 'metered'")
    error = run("check", url=upgraded).error
    assert "grant INSERT (user_id) on table public.token_usage to authenticated is missing" in error
    assert run("pages", "metered", url=upgraded).status == 0
    assert run("check", url=upgraded).status == 0
    execute(upgraded, f"CREATE OR REPLACE FUNCTION oblivion.page_billing() RETURNS text {body} 'trusted'")
    error = run("check", url=upgraded).error
    assert "grant UPDATE (tokens_remaining) on table public.user_accounts to authenticated is not in" in error


@pytest.mark.parametrize(
    ("function", "of", "body"),
    [
        ("oblivion.open_access()", "boolean", "current_user = 'anon'"),
        ("oblivion.page_billing()", "text", "'free'"),
        ("oblivion.page_billing()", "text", "NULL"),
    ],
)
def test_check_sees_a_mode_that_is_none(upgraded: URL, function: str, of: str, body: str) -> None:
    constant = f"LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = '' RETURN {body}"
    execute(upgraded, f"CREATE OR REPLACE FUNCTION {function} RETURNS {of} {constant}")
    assert f"function {function} differs" in run("check", url=upgraded).error


@pytest.mark.server
def test_switch_reaches_running_sessions_and_their_prepared_statements_at_once(open_to_both: URL) -> None:
    """From their next transaction on, which for PostgREST is the next request."""
    authenticator = open_to_both.set(username="authenticator", password="authenticator")
    with create_engine(authenticator, poolclass=NullPool).connect() as connection:

        def ask(sql: str, claims: str = signed_in("mine")) -> list[Row[Any]]:
            with connection.begin():
                connection.execute(
                    text(
                        "SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', :c, true)"
                    ),
                    {"c": claims},
                )
                return rows(connection, sql)

        with connection.begin():
            connection.execute(text("SET plan_cache_mode = force_generic_plan; SET ROLE authenticated"))
            connection.execute(text("PREPARE mine AS SELECT count(*) FROM token_usage"))
            connection.execute(text("PREPARE theirs AS UPDATE token_usage SET tokens_used = 1 RETURNING 1"))
        for _ in range(2):
            assert ask("EXECUTE mine") == [(4,)]
            assert len(ask("EXECUTE theirs")) == 4
            assert run("access", "authenticated", url=open_to_both).status == 0
            assert ask("EXECUTE mine") == [(2,)]
            assert ask("EXECUTE mine", signed_in("nobody")) == [(0,)]
            with pytest.raises(DBAPIError, match="permission denied for table token_usage"):
                ask("EXECUTE theirs")
            assert run("access", "open", url=open_to_both).status == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.server
def test_switch_of_pages_reaches_what_a_session_of_the_api_has_prepared(open_to_both: URL, mode: Mode) -> None:
    """From their next transaction on: the trigger's own plans, and those of the policies that let a write through."""
    assert run("access", mode, url=open_to_both).status == 0
    claims = {"role": "authenticated", "request.jwt.claims": signed_in("mine")}
    authenticator = open_to_both.set(username="authenticator", password="authenticator")
    with create_engine(authenticator, poolclass=NullPool).connect() as connection:

        def ask(sql: str) -> list[Row[Any]]:
            with connection.begin():
                for name, value in claims.items():
                    connection.execute(text("SELECT set_config(:n, :v, true)"), {"n": name, "v": value})
                return rows(connection, sql)

        with connection.begin():
            connection.execute(text("SET plan_cache_mode = force_generic_plan"))
            for name, statement in {
                "begin (text)": (
                    "INSERT INTO call_sessions (room_id, user_id, mode, used_turn, start_time, credit_cost)"
                    " VALUES ($1, 'mine', 'video', false, now(), 0) RETURNING id::text"
                ),
                "finish (uuid)": (
                    "UPDATE call_sessions SET end_time = now(), used_turn = true WHERE id = $1 RETURNING used_turn"
                ),
                "pay": "UPDATE user_accounts SET tokens_remaining = 40 WHERE email = 'e' RETURNING tokens_remaining",
                "sign_in": (
                    "INSERT INTO user_accounts (user_id, email, tokens_remaining) VALUES ('mine', 'e', 100)"
                    " ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id, email = excluded.email,"
                    " tokens_remaining = excluded.tokens_remaining RETURNING tokens_remaining"
                ),
                "log (text)": (
                    "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
                    " VALUES ('mine', $1, 900, 'video', false) RETURNING tokens_used"
                ),
                "who_bills": "SELECT page_billing()",
            }.items():
                connection.execute(text(f"PREPARE {name} AS {statement}"))

        def is_denied(sql: str) -> bool:
            with pytest.raises(DBAPIError, match="permission denied for table"):
                ask(sql)
            return True

        for _ in range(2):
            assert ask("EXECUTE who_bills") == [("trusted",)]
            [(call,)] = ask("EXECUTE begin ('trusted')")
            assert query(open_to_both, f"SELECT FROM oblivion.call_meters WHERE session_id = '{call}'") == []
            if mode == "open":
                assert ask(f"EXECUTE finish ('{call}')") == [(True,)]
                assert ask("EXECUTE sign_in") == [(100,)]
                assert ask("EXECUTE pay") == [(40,)]
                assert ask(f"EXECUTE log ('{call}')") == [(900,)]
            else:
                commands = (f"finish ('{call}')", "sign_in", "pay", f"log ('{call}')")
                assert all(is_denied(f"EXECUTE {command}") for command in commands)
            execute(open_to_both, "UPDATE user_accounts SET tokens_remaining = 50 WHERE user_id = 'mine'")
            assert run("pages", "metered", url=open_to_both).status == 0
            assert ask("EXECUTE who_bills") == [("metered",)]
            [(call,)] = ask("EXECUTE begin ('metered')")
            assert query(open_to_both, f"SELECT user_id FROM oblivion.call_meters WHERE session_id = '{call}'") == [
                ("mine",)
            ]
            assert ask("EXECUTE sign_in") == [(50,)]
            assert ask("EXECUTE pay") == [(50,)]
            assert ask(f"EXECUTE log ('{call}')") == []
            assert ask(f"EXECUTE finish ('{call}')") == [(True,)]
            assert query(open_to_both, "SELECT tokens_remaining FROM user_accounts WHERE user_id = 'mine'") == [(44,)]
            assert run("pages", "trusted", url=open_to_both).status == 0


@pytest.mark.server
def test_plan_of_one_role_is_not_another_roles(closed: URL) -> None:
    """The constants that the planner folds are those of the role, which may change in a session."""
    with request(closed, "authenticated", signed_in("mine")) as connection:
        connection.execute(text("SET LOCAL plan_cache_mode = force_generic_plan"))
        connection.execute(text("PREPARE usage AS SELECT count(*) FROM token_usage"))
        for role, count in [("authenticated", 2), ("service_role", 4)] * 2:
            connection.execute(text(f"SET LOCAL ROLE {role}"))
            assert connection.scalar(text("EXECUTE usage")) == count


@pytest.mark.parametrize(
    ("command", "mode", "other"), SWITCHES, ids=[f"{command} {mode}" for command, mode, _ in SWITCHES]
)
@pytest.mark.server
def test_switch_locks_no_table(engine: Engine, command: str, mode: str, other: str) -> None:
    with engine.connect() as connection:
        if command == "pages":  # otherwise it grants nothing
            closing = run("access", "authenticated", "--sql").out
            connection.exec_driver_sql(closing, execution_options={"no_parameters": True})
        for to in (other, mode):
            statement = run(command, to, "--sql").out
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
        locked = rows(
            connection,
            "SELECT relation::regclass, mode FROM pg_locks JOIN pg_class AS c ON c.oid = relation"
            " WHERE pid = pg_backend_pid() AND relnamespace <> ALL ('{pg_catalog,pg_toast}'::regnamespace[])"
            " AND mode <> 'AccessShareLock'",  # which is a reader's, and which nobody waits for
        )
    assert locked == []


@pytest.mark.parametrize(
    ("role", "before", "switch"),
    [
        ("anon", "open", ("access", "authenticated")),
        ("anon", "open", ("pages", "metered")),
        ("authenticated", "authenticated", ("pages", "metered")),
    ],
)
def test_readers_and_writers_go_on_while_a_switch_is_open(
    engine: Engine, open_to_both: URL, role: str, before: str, switch: tuple[str, str]
) -> None:
    """They do what they could before."""
    assert run("access", before, url=open_to_both).status == 0
    statement = run(*switch, "--sql").out
    with engine.connect() as switching, request(open_to_both, role, signed_in("mine")) as connection:
        switching.exec_driver_sql(statement, execution_options={"no_parameters": True})
        connection.execute(text("SET LOCAL lock_timeout = '1s'"))
        for table in ("user_accounts", "token_usage", "call_sessions", "user_presence"):
            assert rows(connection, f"SELECT * FROM {table}"), table
        connection.execute(text("UPDATE user_accounts SET email = 'new'"))
        connection.execute(text("INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('r', 'mine', 'video')"))
        connection.execute(text("DELETE FROM user_presence WHERE host_id = 'mine'"))
        connection.execute(text("INSERT INTO user_presence (host_id, room_id) VALUES ('mine', 'r')"))
        if before == "open":
            connection.execute(text("UPDATE user_accounts SET tokens_remaining = 5"))
            assert rows(connection, "SELECT DISTINCT tokens_remaining FROM user_accounts") == [(5,)]


@pytest.mark.parametrize("switch", [("access", "authenticated"), ("pages", "metered")], ids=" ".join)
def test_switch_waits_for_an_upgrade_that_is_running(engine: Engine, upgraded: URL, switch: tuple[str, str]) -> None:
    from oblivion_schema.deploy.turns import ADVISORY_LOCK

    with engine.connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
        assert run("access", url=upgraded).out == "open\n", "who only asks does not wait"
        process = spawn("python", "-m", "oblivion_schema", *switch, OBLIVION_DATABASE_URL=libpq(upgraded))
        assert process.stderr
        assert process.stderr.readline().startswith(NAMES_IT)
        assert "Another upgrade is running" in process.stderr.readline()
        assert query(upgraded, "SELECT oblivion.open_access(), public.page_billing()") == [(True, "trusted")]
        connection.rollback()
        out, _ = process.communicate(timeout=30)
        assert out == f"{switch[1]}\n"


@pytest.mark.full
def test_switch_looks_at_the_revision_once_it_is_its_turn(engine: Engine, upgraded: URL) -> None:
    from oblivion_schema.deploy.turns import ADVISORY_LOCK

    with engine.connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
        process = spawn(
            "python", "-m", "oblivion_schema", "access", "authenticated", OBLIVION_DATABASE_URL=libpq(upgraded)
        )
        assert process.stderr
        assert process.stderr.readline().startswith(NAMES_IT)
        assert "Another upgrade is running" in process.stderr.readline()
        connection.execute(text("UPDATE oblivion.alembic_version SET version_num = '999'"))
        connection.commit()
    _, error = process.communicate(timeout=30)
    assert "The database is at 999, which this version of oblivion_schema does not have" in error
    assert query(upgraded, "SELECT oblivion.open_access()") == [(True,)]


def test_switch_takes_back_what_somebody_passed_on(upgraded: URL) -> None:
    role = f"{upgraded.database}_partner"
    execute(upgraded, f"CREATE ROLE {role}; GRANT SELECT ON user_accounts TO service_role WITH GRANT OPTION")
    execute(upgraded, f"SET ROLE service_role; GRANT SELECT ON user_accounts TO anon, {role}")
    assert run("access", "authenticated", url=upgraded).status == 0
    assert query(upgraded, "SELECT has_table_privilege('anon', 'user_accounts', 'SELECT')") == [(False,)]
    execute(upgraded, f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("sql", "undo", "said"),
    [
        (
            (
                "GRANT SELECT ON user_accounts TO {role} WITH GRANT OPTION; SET ROLE {role};"
                " GRANT SELECT ON user_accounts TO anon"
            ),
            "REVOKE SELECT ON user_accounts FROM {role} CASCADE",
            "_partner granted SELECT on user_accounts. Correct that first: the grantor has to REVOKE",
        ),
        (
            "ALTER TABLE token_usage DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE token_usage ENABLE ROW LEVEL SECURITY",
            "row level security is off on token_usage",
        ),
    ],
    ids=["another grantor", "row level security off"],
)
def test_switch_fails_where_the_mode_would_not_hold(upgraded: URL, sql: str, undo: str, said: str) -> None:
    role = f"{upgraded.database}_partner"
    execute(upgraded, f"CREATE ROLE {role}; GRANT USAGE ON SCHEMA public TO {role}")
    execute(upgraded, sql.format(role=role))
    before = dump(upgraded)
    error = run("access", "authenticated", url=upgraded).error
    assert "The access mode would not hold: " in error
    assert said in error
    assert dump(upgraded) == before
    execute(upgraded, undo.format(role=role))
    assert run("access", "authenticated", url=upgraded).status == 0
    execute(upgraded, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_switch_names_policies_that_let_more_through(upgraded: URL) -> None:
    execute(upgraded, 'CREATE POLICY "Support reads calls" ON call_sessions FOR SELECT USING (true)')
    switched = run("access", "authenticated", url=upgraded)
    assert switched.status == 0
    assert switched.err == "Policy Support reads calls on call_sessions is not ours, and allows access in both modes\n"


def test_switch_that_waits_too_long_names_table_and_process(engine: Engine, upgraded: URL) -> None:
    with engine.connect() as connection:
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        connection.execute(text("ALTER TABLE token_usage SET (fillfactor = 90)"))
        error = run("-x", "lock-timeout=100ms", "access", "authenticated", url=upgraded).error
    assert f"public.token_usage is held by process {pid}" in error


# -- A revision that changes grants

IN_METERED_PAGES = "oblivion.page_billing() = 'metered' AND NOT oblivion.open_access()"


@pytest.mark.full
def test_revision_that_changes_what_metered_pages_may_do_is_right_in_all_modes(
    upgraded_sort: Callable[..., URL], tmp_path: Path
) -> None:
    """It is written on a database in other modes."""
    shutil.copytree(PROJECT / "alembic", tmp_path / "alembic")
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    here = ("-c", str(tmp_path / "alembic.ini"))
    urls = {
        modes: upgraded_sort("superuser", "-x", f"access={modes[0]}", "-x", f"pages={modes[1]}") for modes in ALL_MODES
    }
    before = {modes: dump(url) for modes, url in urls.items()}
    change = (
        "GRANT UPDATE (room_id) ON call_sessions TO authenticated;"
        " REVOKE INSERT (duration_seconds) ON token_usage FROM authenticated"
    )
    with declared(f"DO $$ BEGIN IF {IN_METERED_PAGES} THEN {change}; END IF; END $$"):
        assert run(*here, "revision", "--autogenerate", "-m", "change", url=urls["open", "trusted"]).status == 0
        for modes, url in urls.items():
            assert run(*here, "upgrade", "head", url=url).status == 0
            assert run(*here, "check", url=url).status == 0, modes
            assert (dump(url) != before[modes].replace(REVISIONS[-1], f"{int(REVISIONS[-1]) + 1:03}")) == (
                modes == ("authenticated", "metered")
            )
    for modes, url in urls.items():
        assert run(*here, "downgrade", "-1", url=url).status == 0
        assert dump(url) == before[modes]


# -- Realtime

MEMBERS = "SELECT tablename::text FROM pg_publication_tables WHERE pubname = 'supabase_realtime' ORDER BY 1"
PUBLISHED = [("call_sessions",), ("user_accounts",), ("user_presence",)]


@pytest.mark.server
def test_realtime_tells_of_calls_accounts_and_presence(empty: URL) -> None:
    execute(empty, "CREATE PUBLICATION supabase_realtime")
    for _ in range(2):
        assert run("upgrade", "head", url=empty).status == 0
        assert query(empty, MEMBERS) == PUBLISHED
        assert run("check", url=empty).status == 0
        assert run("downgrade", "base", url=empty).status == 0
        assert query(empty, MEMBERS) == []


@pytest.mark.full
def test_realtime_that_was_switched_on_by_hand_stays(empty: URL) -> None:
    assert run("upgrade", "head", url=empty).status == 0
    execute(
        empty, "CREATE TABLE theirs (id integer); CREATE PUBLICATION supabase_realtime FOR TABLE user_presence, theirs"
    )
    run_again(empty)
    assert query(empty, MEMBERS) == sorted([*PUBLISHED, ("theirs",)])
    assert run("check", url=empty).status == 0


def test_publication_of_all_tables_is_left_as_it_is(empty: URL) -> None:
    execute(empty, "CREATE PUBLICATION supabase_realtime FOR ALL TABLES")
    assert run("upgrade", "head", url=empty).status == 0
    assert run("check", url=empty).status == 0


def test_publication_that_is_made_later_is_joined_by_the_next_switch(upgraded: URL) -> None:
    execute(upgraded, "CREATE PUBLICATION supabase_realtime")
    assert "publication supabase_realtime of public.user_presence is missing" in run("check", url=upgraded).error
    assert run("access", "open", url=upgraded).status == 0
    assert query(upgraded, MEMBERS) == PUBLISHED
    assert run("check", url=upgraded).status == 0


@pytest.mark.parametrize("members", ["", "FOR TABLE user_presence"])
@pytest.mark.few(members="FOR TABLE user_presence")
def test_publication_of_somebody_else_is_left_as_it_is(
    new_database: Callable[..., URL], server: URL, members: str
) -> None:
    owned = new_database(owner=True)
    theirs = server.set(database=owned.database)
    if members:
        assert run("upgrade", "003", url=owned).status == 0
        execute(owned, "DELETE FROM oblivion.alembic_version")
    execute(theirs, f"CREATE PUBLICATION supabase_realtime {members}")
    before = query(theirs, MEMBERS)
    assert run("upgrade", "head", url=owned).status == 0
    assert run("check", url=owned).status == 0
    assert query(theirs, MEMBERS) == before


# -- Who is signed in

NOBODY = ["", "{}", "null", '{"sub": null}', '{"sub": ""}', "not json", '{"sub"', "[" * 100_000]


@pytest.mark.parametrize("claims", NOBODY, ids=range(len(NOBODY)))
@pytest.mark.server
def test_who_is_not_signed_in_reads_no_rows_and_gets_no_error(closed: URL, claims: str) -> None:
    with request(closed, "authenticated", claims) as connection:
        for name in PUBLIC:
            assert name == "token_rates" or rows(connection, f"SELECT * FROM {name}") == []


def test_operators_own_role_is_bound_by_the_same_policies(open_to_both: URL) -> None:
    role = f"{open_to_both.database}_reporting"
    execute(open_to_both, f"CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT SELECT ON token_usage TO {role}")
    reporting = open_to_both.set(username=role, password="x")
    try:
        assert len(query(reporting, "SELECT * FROM token_usage")) == 4
        assert run("access", "authenticated", url=open_to_both).status == 0
        assert query(reporting, "SELECT * FROM token_usage") == []
        assert run("check", url=open_to_both).status == 0
    finally:
        execute(open_to_both, f"DROP OWNED BY {role}; DROP ROLE {role}")
