"""The databases that people made by hand are what is known of them, and the deployed clients run against them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from legacy_states import STATES, State
from sqlalchemy import Connection, Engine, NullPool, Row, create_engine, text
from sqlalchemy.exc import ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

COLUMNS = {
    "call_sessions": """
        id uuid NOT NULL DEFAULT gen_random_uuid()
        room_id text NOT NULL
        start_time timestamp with time zone DEFAULT now()
        end_time timestamp with time zone
        mode text NOT NULL
        used_turn boolean DEFAULT false
        credit_cost numeric(10,4) DEFAULT 0.00
        user_id text
        created_at timestamp with time zone DEFAULT now()
        updated_at timestamp with time zone DEFAULT now()
    """,
    "user_presence of the first script": """
        id uuid NOT NULL DEFAULT gen_random_uuid()
        user_id text NOT NULL
        is_available boolean DEFAULT false
        room_id text NOT NULL
        updated_at timestamp with time zone DEFAULT now()
    """,
    "user_presence": """
        id uuid NOT NULL DEFAULT gen_random_uuid()
        host_id text NOT NULL
        is_available boolean DEFAULT true
        room_id text NOT NULL
        updated_at timestamp with time zone DEFAULT now()
    """,
    "user_accounts": """
        user_id text NOT NULL
        tokens_remaining integer NOT NULL DEFAULT 100
        created_at timestamp with time zone DEFAULT now()
        updated_at timestamp with time zone DEFAULT now()
        email text
        subscription_tier text DEFAULT 'free'::text
    """,
    "token_usage": """
        id uuid NOT NULL DEFAULT gen_random_uuid()
        user_id text NOT NULL
        session_id text NOT NULL
        tokens_used integer NOT NULL
        timestamp timestamp with time zone DEFAULT now()
        mode text NOT NULL
        used_turn boolean NOT NULL
        duration_seconds integer
    """,
    "active_calls": """
        id uuid
        room_id text
        mode text
        used_turn boolean
        start_time timestamp with time zone
        duration interval
    """,
    "daily_billing_summary": """
        call_date date
        total_calls bigint
        turn_calls bigint
        video_calls bigint
        voice_calls bigint
        total_credits numeric
        avg_duration_minutes numeric
    """,
    "user_token_summary": """
        user_id text
        tokens_remaining integer
        subscription_tier text
        account_created timestamp with time zone
        total_tokens_used bigint
        total_sessions bigint
        last_usage timestamp with time zone
    """,
    "daily_token_usage": """
        usage_date date
        mode text
        used_turn boolean
        session_count bigint
        total_tokens bigint
        avg_tokens_per_session numeric
        total_minutes numeric
    """,
}
OBJECTS = {
    "call_sessions": """
        call_sessions_pkey PRIMARY KEY (id)
        call_sessions_mode_check CHECK ((mode = ANY (ARRAY['video'::text, 'voice-only'::text])))
        idx_call_sessions_room_id (room_id)
        idx_call_sessions_start_time (start_time)
        idx_call_sessions_used_turn (used_turn)
        idx_call_sessions_user_id (user_id)
        idx_call_sessions_billing (used_turn, start_time)
        update_call_sessions_updated_at BEFORE UPDATE update_updated_at_column
        Allow all operations on call_sessions ALL {public} true true
    """,
    "user_presence of the first script": """
        user_presence_pkey PRIMARY KEY (id)
        Allow read for anyone SELECT {public} true
    """,
    "user_presence": """
        user_presence_pkey PRIMARY KEY (id)
        idx_user_presence_host_unique UNIQUE (host_id)
        idx_user_presence_host_available (host_id, is_available)
        idx_user_presence_updated_at (updated_at)
        update_user_presence_updated_at_trigger BEFORE UPDATE update_user_presence_updated_at
        Allow all operations on user_presence ALL {public} true true
    """,
    "user_accounts": """
        user_accounts_pkey PRIMARY KEY (user_id)
        positive_tokens CHECK ((tokens_remaining >= 0))
        user_accounts_subscription_tier_check\
 CHECK ((subscription_tier = ANY (ARRAY['free'::text, 'pro'::text, 'enterprise'::text])))
        idx_user_accounts_email (email)
        idx_user_accounts_tokens (tokens_remaining)
        update_user_accounts_updated_at BEFORE UPDATE update_updated_at_column
        Allow all operations on user_accounts ALL {public} true true
    """,
    "token_usage": """
        token_usage_pkey PRIMARY KEY (id)
        fk_token_usage_user_id FOREIGN KEY (user_id) REFERENCES user_accounts(user_id) ON DELETE CASCADE
        positive_token_usage CHECK ((tokens_used >= 0))
        valid_duration CHECK (((duration_seconds IS NULL) OR (duration_seconds >= 0)))
        token_usage_mode_check CHECK ((mode = ANY (ARRAY['voice'::text, 'video'::text])))
        idx_token_usage_user_id (user_id)
        idx_token_usage_session_id (session_id)
        idx_token_usage_timestamp ("timestamp")
        idx_token_usage_mode (mode)
        idx_token_usage_user_date (user_id, "timestamp")
        idx_token_usage_billing (mode, used_turn, "timestamp")
        Allow all operations on token_usage ALL {public} true true
    """,
}
ROOM_TOKEN = "room_token text"
# What the safe script adds to the first script's table, but for its column.
BY_SAFE_SCRIPT = """
    idx_user_presence_updated_at (updated_at)
    update_user_presence_updated_at_trigger BEFORE UPDATE update_user_presence_updated_at
    Allow all operations on user_presence ALL {public} true true
"""

READ_COLUMNS = """
    SELECT relname, concat_ws(
      ' ', attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN 'NOT NULL' END,
      'DEFAULT ' || pg_get_expr(adbin, adrelid)
    )
    FROM pg_class
    JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v')
    ORDER BY relname, attnum
"""
# PostgreSQL 18 keeps NOT NULL as a constraint as well.
READ_OBJECTS = """
    SELECT conrelid::regclass::text, concat_ws(' ', conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
    UNION ALL
    SELECT tablename, concat_ws(
      ' ', indexname, CASE WHEN indexdef LIKE 'CREATE UNIQUE%' THEN 'UNIQUE' END,
      substring(indexdef FROM 'USING btree (.*)')
    )
    FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%\\_pkey'
    UNION ALL
    SELECT tgrelid::regclass::text, concat_ws(
      ' ', tgname, substring(pg_get_triggerdef(t.oid) FROM 'BEFORE UPDATE'), proname
    )
    FROM pg_trigger AS t JOIN pg_proc AS p ON p.oid = tgfoid WHERE NOT tgisinternal
    UNION ALL
    SELECT tablename, concat_ws(' ', policyname, cmd, roles, qual, with_check)
    FROM pg_policies
"""


def lines(block: str) -> list[str]:
    return [line.strip() for line in block.splitlines() if line.strip()]


@dataclass(frozen=True)
class Database:
    """An empty database, an engine on it as superuser, and who owns it."""

    engine: Engine
    owner: str
    is_supabase: bool


@pytest.fixture(scope="module", params=["superuser", "supabase-old"])
def database(request: pytest.FixtureRequest, module_database: Callable[[str], URL], server: URL) -> Iterator[Database]:
    """A plain database, which a superuser owns, and one like Supabase's, which an ordinary role does."""
    url = module_database(str(request.param))
    engine = create_engine(server.set(database=url.database), poolclass=NullPool)
    yield Database(engine, url.username or "", is_supabase=request.param != "superuser")
    engine.dispose()


@pytest.fixture(params=STATES, ids=str)
def state(request: pytest.FixtureRequest) -> State:
    found: State = request.param
    return found


@pytest.fixture
def connection(database: Database) -> Iterator[Connection]:
    """The owner's transaction, which is rolled back."""
    with database.engine.connect() as connection:
        connection.execute(text(f"SET LOCAL SESSION AUTHORIZATION {database.owner}"))
        yield connection


def run(connection: Connection, sql: str) -> None:
    if sql:
        connection.exec_driver_sql(sql, execution_options={"no_parameters": True})


def catalog(connection: Connection, sql: str) -> dict[str, list[str]]:
    """What `sql` reads, by table or view."""
    found = defaultdict(list)
    for relation, line in connection.exec_driver_sql(sql, execution_options={"no_parameters": True}):
        found[relation].append(line)
    return found


def relations(state: State) -> dict[str, str]:
    """The tables and views that the state has, and which definition each has."""
    presence = "user_presence" if state.has_hosts else "user_presence of the first script"
    names = ["call_sessions", "active_calls", "daily_billing_summary"] if state.has_calls else []
    names += ["user_accounts", "token_usage", "user_token_summary", "daily_token_usage"] if state.has_billing else []
    return dict(zip(names, names, strict=True)) | ({"user_presence": presence} if state.has_calls else {})


@pytest.mark.server
def test_tables_and_views_have_the_documented_columns(connection: Connection, state: State) -> None:
    run(connection, state.script())
    documented = {name: lines(COLUMNS[definition]) for name, definition in relations(state).items()}
    if state.has_room_tokens:
        documented["user_presence"].append(ROOM_TOKEN)
    assert catalog(connection, READ_COLUMNS) == documented


@pytest.mark.server
def test_tables_have_the_documented_objects(connection: Connection, state: State) -> None:
    run(connection, state.script())
    documented = {
        name: set(lines(OBJECTS[definition])) for name, definition in relations(state).items() if definition in OBJECTS
    }
    if state.has_room_tokens:
        documented["user_presence"] |= set(lines(BY_SAFE_SCRIPT))
    if state.has_billing and "billing_trigger" not in state.ran:
        documented["user_accounts"] = {line for line in documented["user_accounts"] if "BEFORE UPDATE" not in line}
    found = catalog(connection, READ_OBJECTS)
    assert {name: sorted(objects) for name, objects in found.items()} == {
        name: sorted(objects) for name, objects in documented.items()
    }


def test_guards_are_the_documented_ones(connection: Connection, state: State) -> None:
    """Row level security is on, functions have no search_path, and views run with their owner's rights."""
    run(connection, state.script())
    sql = "SELECT bool_and(relrowsecurity AND NOT relforcerowsecurity) FROM pg_class WHERE relkind = 'r' AND {}"
    public = "relnamespace = 'public'::regnamespace"
    assert connection.scalar(text(sql.format(public))) in {True, None}
    assert not list(connection.execute(text(f"SELECT FROM pg_class WHERE reloptions IS NOT NULL AND {public}")))
    assert not list(connection.execute(text("SELECT FROM pg_proc WHERE proconfig IS NOT NULL AND pronamespace = 2200")))


def test_rows_of_every_awkward_sort_are_there(connection: Connection, state: State) -> None:
    run(connection, state.script(rows=True, by_hand=True))

    def there(sql: str) -> bool:
        return bool(connection.scalar(text(f"SELECT EXISTS ({sql})")))

    def nullable(table: str) -> list[str]:
        sql = "SELECT attname FROM pg_attribute WHERE attrelid = CAST(:table AS regclass) AND attnum > 0"
        return list(connection.scalars(text(f"{sql} AND NOT attnotnull"), {"table": table}))

    for table in ("call_sessions", "user_presence", "user_accounts", "token_usage"):
        if table in relations(state):
            for column in nullable(table):
                assert there(f'SELECT FROM {table} WHERE "{column}" IS NULL'), f"{table}.{column}"
    if state.has_calls:
        assert there("SELECT FROM call_sessions WHERE user_id LIKE 'anonymous\\_%'")
        assert there("SELECT FROM call_sessions WHERE end_time < start_time")
        assert there("SELECT FROM call_notes")
        host = "host_id" if state.has_hosts else "user_id"
        duplicates = there(f"SELECT FROM user_presence GROUP BY {host} HAVING count(*) > 1")
        assert duplicates == (not state.has_hosts)
    if state.has_room_tokens:
        assert there("SELECT FROM user_presence WHERE room_token IS NOT NULL")
    if state.has_billing:
        assert there("SELECT FROM token_usage WHERE session_id !~ '^[0-9a-f-]{36}$'")
        assert there("SELECT FROM token_usage GROUP BY session_id HAVING count(*) > 1")
        assert there("SELECT FROM user_accounts WHERE tokens_remaining = 0")
        assert there("SELECT FROM invoices")


def test_second_run_of_the_billing_script_lifts_the_demo_account_alone(connection: Connection) -> None:
    [once] = (state for state in STATES if state.name == "presence fixed, billing")
    [twice] = (state for state in STATES if state.name == "billing twice")
    again = twice.script().removeprefix(once.script())
    run(connection, once.script())
    run(connection, "UPDATE user_accounts SET tokens_remaining = 3")
    run(connection, again)
    balances = connection.execute(text("SELECT user_id, tokens_remaining FROM user_accounts ORDER BY user_id")).all()
    assert balances == [("demo_user", 500), ("developer", 3), ("test_user_1", 3), ("test_user_2", 3)]


@pytest.fixture
def request_of_client(connection: Connection, database: Database, state: State) -> Callable[..., Row[Any]]:
    """Send a request of a browser, one statement that returns a row, to a database that has calls and accounts.

    It is sent as anon on Supabase, and as the owner elsewhere: the old scripts grant nothing.
    """
    run(connection, state.script(rows=True, by_hand=True))
    if database.is_supabase:
        connection.execute(text("RESET SESSION AUTHORIZATION"))
        connection.execute(text("SET LOCAL ROLE anon"))

    def send(sql: str, **values: object) -> Row[Any]:
        return connection.execute(text(sql), values).one()

    return send


CLOCK = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("state", [state for state in STATES if state.has_calls], ids=str, indirect=True)
def test_clients_start_and_end_calls(request_of_client: Callable[..., Row[Any]]) -> None:
    [call] = request_of_client(
        "INSERT INTO call_sessions (room_id, user_id, mode, used_turn, start_time, credit_cost)"
        " VALUES ('room', 'demo_user', 'voice-only', false, :clock, 0) RETURNING id",
        clock=CLOCK,
    )
    assert request_of_client("SELECT * FROM active_calls WHERE id = :id", id=call).room_id == "room"
    ended = request_of_client(
        "UPDATE call_sessions SET end_time = :clock, used_turn = true, credit_cost = 0.4 WHERE id = :id RETURNING *",
        clock=CLOCK + timedelta(seconds=61),
        id=call,
    )
    assert (ended.used_turn, ended.credit_cost) == (True, Decimal("0.4000"))
    assert ended.updated_at == ended.created_at


@pytest.mark.parametrize("state", [state for state in STATES if state.has_calls], ids=str, indirect=True)
def test_dashboards_read_the_last_thirty_days_of_calls(request_of_client: Callable[..., Row[Any]]) -> None:
    day = request_of_client("SELECT * FROM daily_billing_summary")
    assert tuple(day)[1:] == (1, 0, 0, 1, 0, None)


@pytest.mark.parametrize("state", [state for state in STATES if state.has_billing], ids=str, indirect=True)
def test_clients_bill_and_sign_in(request_of_client: Callable[..., Row[Any]]) -> None:
    [balance] = request_of_client("SELECT tokens_remaining FROM user_accounts WHERE user_id = 'demo_user'")
    account = request_of_client(
        "UPDATE user_accounts SET tokens_remaining = :left WHERE user_id = 'demo_user' RETURNING *", left=balance - 4
    )
    assert account.tokens_remaining == 496
    request_of_client(
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)"
        " VALUES ('demo_user', 'call', 4, 'voice', true, 61) RETURNING *"
    )
    summary = request_of_client("SELECT * FROM user_token_summary WHERE user_id = 'demo_user'")
    assert (summary.tokens_remaining, summary.total_tokens_used, summary.total_sessions) == (496, 28, 3)
    day = request_of_client("SELECT * FROM daily_token_usage WHERE mode = 'voice'")
    assert tuple(day)[1:5] == ("voice", True, 1, 4)
    signed_in = request_of_client(
        "INSERT INTO user_accounts (user_id, email, tokens_remaining) VALUES ('demo_user', 'e', 100)"
        " ON CONFLICT (user_id) DO UPDATE SET user_id = excluded.user_id, email = excluded.email,"
        " tokens_remaining = excluded.tokens_remaining RETURNING *"
    )
    assert (signed_in.tokens_remaining, signed_in.subscription_tier) == (100, "free")


@pytest.mark.parametrize("state", [state for state in STATES if state.has_hosts], ids=str, indirect=True)
def test_clients_upsert_presence(request_of_client: Callable[..., Row[Any]]) -> None:
    upsert = (
        "INSERT INTO user_presence (host_id, is_available, room_id, updated_at) VALUES ('host', :free, 'r', :clock)"
        " ON CONFLICT (host_id) DO UPDATE SET host_id = excluded.host_id, is_available = excluded.is_available,"
        " room_id = excluded.room_id, updated_at = excluded.updated_at RETURNING *"
    )
    first = request_of_client(upsert, free=True, clock=CLOCK)
    second = request_of_client(upsert, free=False, clock=CLOCK)
    assert (first.id, first.is_available, second.is_available) == (second.id, True, False)
    assert second.updated_at > CLOCK


@pytest.mark.parametrize("state", [state for state in STATES if state.name == "calls only"], ids=str, indirect=True)
@pytest.mark.few(state="calls only", database="supabase-old")
def test_presence_of_the_first_script_is_read_and_not_written(
    request_of_client: Callable[..., Row[Any]], database: Database
) -> None:
    assert request_of_client("SELECT count(*) FROM user_presence") == (8,)
    if database.is_supabase:
        with pytest.raises(ProgrammingError, match="row-level security"):
            request_of_client("INSERT INTO user_presence (user_id, room_id) VALUES ('h', 'r') RETURNING *")
