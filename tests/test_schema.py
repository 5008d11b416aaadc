"""The schema: what the system taken over documents, and what holds for every object there is or will be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Connection, NullPool, create_engine, inspect, text
from sqlalchemy.exc import IntegrityError
from support import REVISIONS, execute, query

from oblivion_schema import metadata, upgrade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL, Engine

pytestmark = pytest.mark.server

# Column, type, nullability and default, in the order that `select *` gives clients.
COLUMNS = {
    "call_sessions": """
        id            uuid                      not-null  gen_random_uuid()
        room_id       text                      not-null
        start_time    timestamp-with-time-zone  not-null  now()
        end_time      timestamp-with-time-zone  null
        mode          text                      not-null
        used_turn     boolean                   not-null  false
        credit_cost   numeric(10,4)             not-null  0.00
        user_id       text                      null
        created_at    timestamp-with-time-zone  not-null  now()
        updated_at    timestamp-with-time-zone  not-null  now()
    """,
    "user_presence": """
        id            uuid                      not-null  gen_random_uuid()
        host_id       text                      not-null
        is_available  boolean                   not-null  true
        room_id       text                      not-null
        updated_at    timestamp-with-time-zone  not-null  now()
        room_token    text                      null
    """,
    "user_accounts": """
        user_id            text                      not-null
        tokens_remaining   integer                   not-null  100
        created_at         timestamp-with-time-zone  not-null  now()
        updated_at         timestamp-with-time-zone  not-null  now()
        email              text                      null
        subscription_tier  text                      not-null  'free'::text
    """,
    "token_usage": """
        id                uuid                      not-null  gen_random_uuid()
        user_id           text                      not-null
        session_id        text                      not-null
        tokens_used       integer                   not-null
        timestamp         timestamp-with-time-zone  not-null  now()
        mode              text                      not-null
        used_turn         boolean                   not-null
        duration_seconds  integer                   null
    """,
    "token_rates": """
        mode               text                      not-null
        used_turn          boolean                   not-null
        effective_from     timestamp-with-time-zone  not-null  now()
        tokens_per_minute  integer                   not-null
    """,
    "token_ledger": """
        user_id     text                      not-null
        id          bigint                    not-null
        created_at  timestamp-with-time-zone  not-null  clock_timestamp()
        kind        text                      not-null
        tokens      integer                   not-null
        balance     integer                   not-null
        session_id  uuid                      null
        key         text                      null
        role        text                      null
    """,
}

VIEWS = {
    "active_calls": "id room_id mode used_turn start_time duration",
    "daily_billing_summary": "call_date total_calls turn_calls video_calls voice_calls total_credits"
    " avg_duration_minutes",
    "user_token_summary": "user_id tokens_remaining subscription_tier account_created total_tokens_used total_sessions"
    " last_usage",
    "daily_token_usage": "usage_date mode used_turn session_count total_tokens avg_tokens_per_session total_minutes",
}


@pytest.fixture
def connection(engine: Engine) -> Iterator[Connection]:
    """A transaction that is rolled back."""
    with engine.connect() as connection:
        yield connection


def test_public_holds_the_documented_tables_and_views_and_nothing_else(connection: Connection) -> None:
    found = connection.execute(
        text("SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = 'public'")
    )
    documented = {(name, "BASE TABLE") for name in COLUMNS} | {(name, "VIEW") for name in VIEWS}
    undocumented = sorted({tuple(row) for row in found} ^ documented)
    assert not undocumented, f"write each into COLUMNS or VIEWS of tests/test_schema.py, or out of it: {undocumented}"


@pytest.mark.parametrize("table", COLUMNS)
def test_table_has_the_documented_columns_in_order(connection: Connection, table: str) -> None:
    found = connection.execute(
        text(
            """
            SELECT attname, format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid)
            FROM pg_attribute LEFT JOIN pg_attrdef ON (adrelid, adnum) = (attrelid, attnum)
            WHERE attrelid = CAST(:table AS regclass) AND attnum > 0 ORDER BY attnum
            """
        ),
        {"table": table},
    )
    lines = [
        " ".join([name, kind.replace(" ", "-"), "not-null" if not_null else "null", default or ""]).strip()
        for name, kind, not_null, default in found
    ]
    documented = [" ".join(line.split()) for line in COLUMNS[table].strip().splitlines()]
    is_now = "\n".join(lines)
    assert lines == documented, (
        f'write into COLUMNS["{table}"] of tests/test_schema.py what clients are to get:\n{is_now}'
    )


@pytest.mark.parametrize("view", VIEWS)
def test_view_has_the_documented_columns_in_order(connection: Connection, view: str) -> None:
    assert list(connection.execute(text(f"SELECT * FROM {view}")).keys()) == VIEWS[view].split()


@pytest.mark.parametrize("name", metadata.tables)
def test_python_types_are_those_of_the_database(connection: Connection, name: str) -> None:
    table = metadata.tables[name]
    declared = {column.name: column.type.python_type for column in table.c}
    found = {
        column["name"]: column["type"].python_type
        for column in inspect(connection).get_columns(table.name, schema=table.schema)
    }
    assert found == declared


NAMES = {
    "call_sessions_pkey", "call_sessions_mode_check",
    "idx_call_sessions_room_id", "idx_call_sessions_start_time", "idx_call_sessions_user_id",
    "idx_call_sessions_billing", "idx_call_sessions_active",
    "user_presence_pkey", "idx_user_presence_host_unique",
    "user_accounts_pkey", "positive_tokens", "user_accounts_subscription_tier_check", "idx_user_accounts_email",
    "token_usage_pkey", "fk_token_usage_user_id", "positive_token_usage", "token_usage_mode_check", "valid_duration",
    "idx_token_usage_session", "idx_token_usage_timestamp", "idx_token_usage_user_date",
    "token_rates_pkey", "token_rates_mode_check", "token_rates_tokens_per_minute_check",
    "token_ledger_pkey", "idx_token_ledger_key",
    # In schema oblivion.
    "adoption_log_pkey", "alembic_version_pkc", "backfills_pkey",
    "call_meters_pkey", "call_meters_session_id_fkey", "call_meters_client_key",
    "call_meters_unsettled",
    "call_segments_pkey", "call_segments_session_id_fkey",
    "billing_incidents_pkey", "billing_incidents_open",
    "sign_up_pkey", "sign_up_is_open_check", "sign_up_tokens_check",
    "daily_usage_pkey", "user_usage_pkey", "daily_calls_pkey",
}  # fmt: skip


def test_constraints_and_indexes_have_the_documented_names(upgraded: URL) -> None:
    found = query(
        upgraded,
        "SELECT conname FROM pg_constraint WHERE contype IN ('c', 'f', 'p', 'u')"
        " AND connamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)"
        " UNION SELECT indexname FROM pg_indexes WHERE schemaname IN ('public', 'oblivion')",
    )
    undocumented = sorted({str(name) for (name,) in found} ^ NAMES)
    assert not undocumented, f"write each into NAMES of tests/test_schema.py, or out of it: {undocumented}"


CALL = "INSERT INTO call_sessions (room_id, mode) VALUES ('r', '{}')"
USAGE = (
    "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)"
    " VALUES ('{0}', 's', {1}, '{2}', false, {3})"
)
LEDGER = "INSERT INTO token_ledger (user_id, {}) VALUES ('u', 'top_up', 1, 1, {}), ('u', 'top_up', 1, 2, {})"
# Of a visitor, who has no name: such keys are as unique as others.
METER = """
    WITH calls AS (INSERT INTO call_sessions (room_id, mode) VALUES ('r', 'video'), ('r', 'video') RETURNING id)
    INSERT INTO oblivion.call_meters (
      session_id, client_key, mode, started_at, seen_at, used_turn, tokens_per_minute, is_plain, direct_rate,
      direct_rate_from, turn_rate, turn_rate_from
    )
    SELECT id, {}, 'video', now(), now(), false, 2, true, 2, now(), 6, now() FROM calls
"""
ID = "'00000000-0000-0000-0000-000000000000'"
INCIDENT = "INSERT INTO oblivion.billing_incidents (session_id, action, error_code, message) VALUES"


@pytest.mark.parametrize(
    ("constraint", "sql"),
    [
        ("call_sessions_mode_check", CALL.format("voice")),
        ("idx_user_presence_host_unique", "INSERT INTO user_presence (host_id, room_id) VALUES ('h', 'r'), ('h', 's')"),
        ("positive_tokens", "UPDATE user_accounts SET tokens_remaining = -1"),
        ("user_accounts_subscription_tier_check", "UPDATE user_accounts SET subscription_tier = 'gold'"),
        ("fk_token_usage_user_id", USAGE.format("nobody", 1, "voice", 1)),
        ("positive_token_usage", USAGE.format("demo_user", -1, "voice", 1)),
        ("token_usage_mode_check", USAGE.format("demo_user", 1, "voice-only", 1)),
        ("valid_duration", USAGE.format("demo_user", 1, "voice", -1)),
        ("token_rates_mode_check", "INSERT INTO token_rates VALUES ('voice-only', false, now(), 1)"),
        ("token_rates_tokens_per_minute_check", "INSERT INTO token_rates VALUES ('voice', false, now(), -1)"),
        ("idx_token_ledger_key", LEDGER.format("kind, tokens, balance, key", "'k'", "'k'")),
        (
            "token_ledger_pkey",
            LEDGER.format("kind, tokens, balance, id", 7, 7).replace(") V", ") OVERRIDING SYSTEM VALUE V"),
        ),
        (
            "call_meters_session_id_fkey",
            METER.format("NULL").replace("SELECT id", "SELECT gen_random_uuid()"),
        ),
        ("call_meters_client_key", METER.format("'k'")),
        ("billing_incidents_open", f"{INCIDENT} ({ID}, 'tick', 'c', 'm'), ({ID}, 'end', 'c', 'm')"),
    ],
)
def test_broken_rule_is_refused_by_name(connection: Connection, constraint: str, sql: str) -> None:
    with pytest.raises(IntegrityError, match=constraint):
        connection.execute(text(sql))


def test_deleting_an_account_deletes_its_usage(connection: Connection) -> None:
    connection.execute(text(USAGE.format("demo_user", 1, "voice", "NULL")))
    connection.execute(text("DELETE FROM user_accounts WHERE user_id = 'demo_user'"))
    assert connection.scalar(text("SELECT count(*) FROM token_usage")) == 0


# Of the statement, and not of its transaction: within these bounds a row is stamped with itself.
CLOCK = "CASE WHEN updated_at BETWEEN :before AND clock_timestamp() THEN updated_at END"


@pytest.mark.parametrize(
    ("insert", "update", "stamp"),
    [
        (CALL.format("video"), "UPDATE call_sessions SET end_time = now()", CLOCK),
        (
            "INSERT INTO user_presence (host_id, room_id) VALUES ('h', 'r')",
            "UPDATE user_presence SET updated_at = '2001-01-01'",
            "now()",
        ),
        ("INSERT INTO user_accounts (user_id) VALUES ('u')", "UPDATE user_accounts SET tokens_remaining = 1", CLOCK),
    ],
    ids=["call_sessions", "user_presence", "user_accounts"],
)
def test_update_is_stamped_with_the_servers_clock(engine: Engine, insert: str, update: str, stamp: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(insert))
    with engine.begin() as connection:
        table = update.split()[1]
        [before] = connection.execute(text("SELECT clock_timestamp()")).one()
        connection.execute(text(update))
        unstamped = connection.scalar(
            text(f"SELECT count(*) FROM {table} WHERE updated_at IS DISTINCT FROM {stamp}"), {"before": before}
        )
    assert unstamped == 0


OPEN_INCIDENTS = "SELECT * FROM oblivion.billing_incidents WHERE resolved_at IS NULL"
# The documented query patterns, and the index that serves each.
SERVED_BY = [
    ("call_sessions_pkey", "SELECT * FROM call_sessions WHERE id = '00000000-0000-0000-0000-000000000000'"),
    ("idx_call_sessions_room_id", "SELECT * FROM call_sessions WHERE room_id = 'r'"),
    ("idx_call_sessions_start_time", "SELECT * FROM call_sessions WHERE start_time >= '2026-09-01'"),
    ("idx_call_sessions_user_id", "SELECT * FROM call_sessions WHERE user_id = 'u'"),
    ("idx_call_sessions_billing", "SELECT * FROM call_sessions WHERE used_turn ORDER BY start_time DESC LIMIT 50"),
    ("idx_call_sessions_billing", "SELECT room_id, start_time, credit_cost FROM call_sessions WHERE used_turn = true"),
    ("idx_call_sessions_active", "SELECT * FROM active_calls"),
    ("user_presence_pkey", "SELECT * FROM user_presence WHERE id = '00000000-0000-0000-0000-000000000000'"),
    ("idx_user_presence_host_unique", "SELECT * FROM user_presence WHERE host_id = 'h' AND is_available"),
    ("user_accounts_pkey", "SELECT * FROM user_accounts WHERE user_id = 'u'"),
    ("idx_user_accounts_email", "SELECT * FROM user_accounts WHERE email = 'e'"),
    ("token_usage_pkey", "SELECT * FROM token_usage WHERE id = '00000000-0000-0000-0000-000000000000'"),
    ("idx_token_usage_user_date", "SELECT * FROM token_usage WHERE user_id = 'u'"),
    ("idx_token_usage_user_date", "SELECT * FROM token_usage WHERE user_id = 'u7' AND timestamp >= '2026-01-01'"),
    ("idx_token_usage_session", "SELECT * FROM token_usage WHERE session_id = '7'"),
    ("idx_token_usage_timestamp", "SELECT * FROM token_usage WHERE timestamp >= '2026-09-01'"),
    ("idx_token_usage_timestamp", "SELECT * FROM token_usage WHERE mode = 'video' AND timestamp >= '2026-09-01'"),
    ("idx_token_usage_timestamp", "SELECT * FROM token_usage ORDER BY timestamp DESC LIMIT 100"),
    ("token_ledger_pkey", "SELECT * FROM token_ledger WHERE user_id = 'u' ORDER BY id"),
    ("idx_token_ledger_key", "SELECT * FROM token_ledger WHERE user_id = 'u' AND key = 'k'"),
    # What the functions of the engine ask.
    ("call_meters_pkey", f"SELECT * FROM oblivion.call_meters WHERE session_id = {ID}"),
    ("call_meters_client_key", "SELECT * FROM oblivion.call_meters WHERE user_id = 'u' AND client_key = 'k'"),
    ("call_meters_client_key", "SELECT * FROM oblivion.call_meters WHERE user_id IS NULL AND client_key = 'k'"),
    ("call_meters_unsettled", "SELECT session_id FROM oblivion.call_meters WHERE NOT settled"),
    ("call_segments_pkey", f"SELECT * FROM oblivion.call_segments WHERE session_id = {ID} ORDER BY number"),
    ("billing_incidents_open", f"{OPEN_INCIDENTS} AND session_id = {ID}"),
    ("billing_incidents_open", OPEN_INCIDENTS),
    ("billing_incidents_pkey", "SELECT * FROM oblivion.billing_incidents WHERE id = 7"),
    # What the reports ask.
    ("daily_usage_pkey", "SELECT * FROM daily_token_usage WHERE usage_date = '2026-09-01'"),
    ("user_usage_pkey", "SELECT * FROM user_token_summary WHERE user_id = 'u7'"),
    ("daily_calls_pkey", "SELECT * FROM daily_billing_summary WHERE call_date = '2026-09-01'"),
]  # fmt: skip


# Of tables that stay small PostgreSQL reads the pages: their keys are there for what they keep single.
KEEPS_SINGLE = {"token_rates_pkey", "adoption_log_pkey", "alembic_version_pkc", "sign_up_pkey", "backfills_pkey"}

# Three years of a thousand accounts, a tenth of the calls over TURN, some going on.
THREE_YEARS = """
INSERT INTO user_accounts (user_id, email) SELECT 'u' || n, n || '@example.com' FROM generate_series(0, 999) AS n;
INSERT INTO user_presence (host_id, room_id) SELECT 'h' || n, 'r' FROM generate_series(0, 999) AS n;
INSERT INTO call_sessions (id, room_id, mode, used_turn, user_id, start_time, end_time)
SELECT
  md5(n::text)::uuid, 'r' || n % 2000, 'video', n % 10 = 0, 'u' || n % 1000,
  '2023-09-02'::timestamptz + n * interval '79 minutes', '2023-09-02'::timestamptz + n * interval '80 minutes'
FROM generate_series(1, 19999) AS n
WHERE n % 200 <> 0
UNION ALL
SELECT md5(n::text)::uuid, 'r', 'video', false, 'u' || n % 1000, '2026-09-01', NULL
FROM generate_series(200, 20000, 200) AS n;
INSERT INTO token_usage (user_id, session_id, tokens_used, "timestamp", mode, used_turn)
SELECT
  'u' || n % 1000, n, 2, '2023-09-02'::timestamptz + n * interval '79 minutes',
  CASE WHEN n % 3 = 0 THEN 'voice' ELSE 'video' END, n % 10 = 0
FROM generate_series(1, 20000) AS n;
INSERT INTO oblivion.call_meters (
  session_id, user_id, client_key, mode, started_at, seen_at, used_turn, tokens_per_minute, is_plain, direct_rate,
  direct_rate_from, turn_rate, turn_rate_from, settled
)
SELECT
  id, nullif(user_id, 'u1'), id, 'video', now(), now(), false, 2, true, 2, now(), 6, now(), end_time IS NOT NULL
FROM call_sessions;
INSERT INTO oblivion.call_segments (
  session_id, number, is_logged, used_turn, tokens_per_minute, rate_from, first_minute, minutes, seconds, due_before,
  due_after, shortfall
)
SELECT id, 1, true, false, 2, now(), 0, 1, 60, 0, 2, 0 FROM call_sessions;
INSERT INTO oblivion.billing_incidents (session_id, action, error_code, message, resolved_at)
SELECT id, 'tick', 'c', 'm', CASE WHEN end_time IS NOT NULL THEN now() END FROM call_sessions;
INSERT INTO token_ledger (user_id, kind, tokens, balance, key)
SELECT 'u' || n % 1000, 'top_up', 0, 100, n FROM generate_series(1, 20000) AS n;
"""


@pytest.fixture(scope="module")
def three_years(module_database: Callable[[str], URL]) -> URL:
    """A database with realistic rows."""
    url = module_database("superuser")
    upgrade(url)
    execute(url, THREE_YEARS)
    query(url, "SELECT oblivion.fold_usage(100000), oblivion.fold_calls(100000)")
    with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(text("VACUUM (ANALYZE)"))
    return url


@pytest.mark.parametrize(("index", "sql"), SERVED_BY)
def test_documented_query_is_served_by_its_index(three_years: URL, index: str, sql: str) -> None:
    with create_engine(three_years, poolclass=NullPool).connect() as connection:
        plan: Any = connection.scalar(text(f"EXPLAIN (FORMAT json) {sql}"))
    assert index in set(_index_names(plan[0]["Plan"])), plan


def _index_names(node: dict[str, Any]) -> Iterator[str]:
    if "Index Name" in node:
        yield node["Index Name"]
    for child in node.get("Plans", ()):
        yield from _index_names(child)


def test_every_index_serves_a_documented_query(upgraded: URL) -> None:
    found = query(upgraded, "SELECT indexname FROM pg_indexes WHERE schemaname IN ('public', 'oblivion')")
    undecided = sorted({str(name) for (name,) in found} ^ ({index for index, _ in SERVED_BY} | KEEPS_SINGLE))
    assert not undecided, (
        f"write into SERVED_BY of tests/test_schema.py the query that each serves, or into KEEPS_SINGLE: {undecided}"
    )


def test_no_index_is_the_beginning_of_another(upgraded: URL) -> None:
    redundant = query(
        upgraded,
        """
        SELECT a.indexrelid::regclass, b.indexrelid::regclass
        FROM pg_index AS a JOIN pg_index AS b ON a.indrelid = b.indrelid AND a.indexrelid <> b.indexrelid
        WHERE a.indrelid IN (
          SELECT oid FROM pg_class WHERE relnamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)
        )
          AND NOT a.indisunique AND a.indpred IS NOT DISTINCT FROM b.indpred
          AND concat(b.indkey::text, ' ') LIKE concat(a.indkey::text, ' %')
        """,
    )
    assert redundant == []


OURS = "n.nspname IN ('public', 'oblivion') AND c.relname <> 'alembic_version'"


def test_everything_has_a_comment(upgraded: URL) -> None:
    silent = query(
        upgraded,
        f"""
        SELECT c.relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace
        WHERE {OURS} AND relkind IN ('r', 'v') AND obj_description(c.oid, 'pg_class') IS NULL
        UNION ALL
        SELECT concat(c.relname, '.', attname) FROM pg_attribute
        JOIN pg_class AS c ON c.oid = attrelid JOIN pg_namespace AS n ON n.oid = relnamespace
        WHERE {OURS} AND relkind IN ('r', 'v') AND attnum > 0 AND col_description(c.oid, attnum) IS NULL
        UNION ALL
        SELECT p.oid::regprocedure::text FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = pronamespace
        WHERE n.nspname IN ('public', 'oblivion') AND obj_description(p.oid, 'pg_proc') IS NULL
        """,
    )
    assert silent == []


def test_every_view_reads_with_the_rights_of_its_reader(upgraded: URL) -> None:
    owners = query(
        upgraded,
        f"SELECT relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE {OURS}"
        " AND relkind = 'v' AND reloptions IS DISTINCT FROM ARRAY['security_invoker=true']",
    )
    assert owners == []


def test_every_table_is_under_row_level_security(upgraded: URL) -> None:
    unguarded = query(
        upgraded,
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        " AND NOT relrowsecurity",
    )
    assert unguarded == []


def test_every_table_has_one_policy_for_each_command(upgraded: URL) -> None:
    found = query(
        upgraded,
        "SELECT tablename, cmd, policyname, permissive, roles::text FROM pg_policies WHERE schemaname = 'public'",
    )
    assert sorted(found) == sorted(
        (table, command, f"{table}_{command.lower()}", "PERMISSIVE", "{public}")
        for table in COLUMNS
        for command in ("SELECT", "INSERT", "UPDATE", "DELETE")
    )


def test_every_foreign_key_is_indexed(upgraded: URL) -> None:
    unindexed = query(
        upgraded,
        """
        SELECT conname FROM pg_constraint WHERE contype = 'f' AND NOT EXISTS (
          SELECT FROM pg_index WHERE indrelid = conrelid
            AND (indkey::smallint[])[0:cardinality(conkey) - 1] = conkey AND indpred IS NULL
        )
        """,
    )
    assert unindexed == []


def test_version_table_is_out_of_clients_reach(upgraded: URL) -> None:
    reachable = query(
        upgraded,
        "SELECT rolname FROM pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role')"
        " AND has_schema_privilege(rolname, 'oblivion', 'USAGE')",
    )
    assert reachable == []
    assert query(upgraded, "SELECT version_num FROM oblivion.alembic_version") == [(REVISIONS[-1],)]
