"""Presence: what heartbeats leave behind, whose clock counts, and who is there."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any, cast

import psycopg
import psycopg2
import pytest
from psycopg2 import errors
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import DBAPIError
from support import API_ROLES, ROWS_OF_TWO_USERS, execute, libpq, query, request, signed_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL, Connection, Row

    from oblivion_schema.tables.access import Mode

pytestmark = pytest.mark.server

HOSTS = 1000
# As the deployed pages send it, their clock included.
HEARTBEAT = """
INSERT INTO user_presence (host_id, is_available, room_id, updated_at)
VALUES ('host_' || $1, $2, 'room_' || $1 || $3, $4)
ON CONFLICT (host_id) DO UPDATE
SET host_id = excluded.host_id, is_available = excluded.is_available, room_id = excluded.room_id,
  updated_at = excluded.updated_at
RETURNING *
"""


# -- What heartbeats leave behind


def test_heartbeats_write_to_no_index_and_leave_the_table_as_big_as_it_was(upgraded: URL) -> None:
    """While some transaction on the server goes on, as others do here, VACUUM alone makes room: it does at times."""
    rounds = 12
    with closing(psycopg2.connect(libpq(upgraded))) as connection, connection.cursor() as cursor:
        connection.autocommit = True  # each heartbeat is a transaction of its own

        def numbers(statement: str) -> tuple[int, ...]:
            cursor.execute(statement)
            [found] = cursor.fetchall()
            return tuple(found)

        cursor.execute(
            "INSERT INTO user_presence (host_id, room_id)"
            f" SELECT 'host_' || n, 'room_' || n FROM generate_series(1, {HOSTS}) AS n"
        )
        before = numbers("SELECT pg_relation_size('user_presence'), pg_indexes_size('user_presence')")
        cursor.execute(f"PREPARE heartbeat (integer, boolean, integer, timestamptz) AS {HEARTBEAT}")
        for turn in range(rounds):
            for host in range(1 + turn % 3, 1 + HOSTS, 3):
                cursor.execute(
                    "EXECUTE heartbeat (%s, %s, %s, %s)", (host, host % 7 > 0, turn % 2, f"2026-03-01 00:{turn:02}")
                )
            cursor.execute("VACUUM user_presence")
        cursor.execute("SELECT pg_stat_force_next_flush()")
        updated, hot = numbers(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relname = 'user_presence'"
        )
        assert updated == HOSTS * rounds // 3
        assert hot == updated
        assert numbers("SELECT pg_relation_size('user_presence'), pg_indexes_size('user_presence')") == before
        cursor.execute("CREATE TEMPORARY TABLE live AS TABLE user_presence")
        assert before[0] <= 2 * numbers("SELECT pg_relation_size('live')")[0]


# What heartbeats, ticks and charges write to, again and again.
OFTEN_WRITTEN = {
    "public.user_presence": {"is_available", "room_id", "updated_at", "room_token"},
    "public.call_sessions": {"credit_cost", "updated_at"},
    "public.user_accounts": {"tokens_remaining", "updated_at"},
}


def test_no_index_holds_what_is_written_often(upgraded: URL) -> None:
    columns = query(
        upgraded,
        """
        SELECT format('%s.%s', relnamespace::regnamespace, relname), attname::text, attnum IN (
          SELECT unnest(indkey) FROM pg_index WHERE indrelid = attrelid
          UNION ALL
          -- Of an expression, or of a condition.
          SELECT refobjsubid FROM pg_depend JOIN pg_index ON indexrelid = objid
          WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = attrelid
        )
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relkind = 'r' AND attnum > 0 AND NOT attisdropped
          AND relnamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)
        """,
    )
    indexed = {(str(table), str(column)): is_indexed for table, column, is_indexed in columns}
    often = {(table, column) for table, its in OFTEN_WRITTEN.items() for column in its}
    often |= {(table, column) for table, column in indexed if column == "updated_at"}
    assert often <= indexed.keys()
    assert {place for place in often if indexed[place]} == set()
    # The search finds a column, and one of a condition only.
    assert indexed["public.user_presence", "host_id"]
    assert indexed["public.call_sessions", "end_time"]


# -- Whose clock counts

FORGED = (
    "'infinity'", "'-infinity'", "'2999-12-31'", "'1970-01-01'", "now() + interval '1 second'",
    "now() - interval '1 second'", "clock_timestamp()", "now()",
)  # fmt: skip
# Each writes the one row of the host :host with the time that it is given.
WRITES = {
    "insert": "INSERT INTO user_presence (host_id, room_id, updated_at) VALUES (:host, 'r', {time})",
    "upsert": (
        "INSERT INTO user_presence (host_id, room_id, updated_at) VALUES (:host, 'r', {time})"
        " ON CONFLICT (host_id) DO UPDATE SET host_id = excluded.host_id, room_id = excluded.room_id,"
        " updated_at = excluded.updated_at"
    ),
    "upsert of another time": (
        "INSERT INTO user_presence (host_id, room_id) VALUES (:host, 'r')"
        " ON CONFLICT (host_id) DO UPDATE SET updated_at = {time}"
    ),
    "update": "UPDATE user_presence SET updated_at = {time} WHERE host_id = :host",
}
SENDERS = {
    "open": [(role, "{}") for role in API_ROLES],
    "authenticated": [("authenticated", signed_in("mine")), ("service_role", json.dumps({"role": "service_role"}))],
}


@pytest.fixture(scope="module", params=sorted(SENDERS))
def mode(request: pytest.FixtureRequest) -> Mode:
    """One of the access modes."""
    return cast("Mode", request.param)


@pytest.fixture(scope="module")
def hosts(mode: Mode, module_database: Callable[[str], URL]) -> URL:
    """A database in that mode with the hosts `mine` and `theirs`, not heard of for long; tests roll back."""
    from oblivion_schema import upgrade

    url = module_database("supabase-new")
    upgrade(url, access=mode, demo=False)
    execute(
        url,
        f"""
        {ROWS_OF_TWO_USERS}
        ALTER TABLE user_presence DISABLE TRIGGER USER;
        UPDATE user_presence SET updated_at = '2001-01-01';
        ALTER TABLE user_presence ENABLE TRIGGER USER
        """,
    )
    return url


@pytest.mark.parametrize("write", WRITES)
def test_time_that_a_client_sends_is_not_taken(mode: Mode, hosts: URL, write: str) -> None:
    for role, claims in SENDERS[mode]:
        with request(hosts, role, claims) as connection:
            # A decoy for each name that could be looked up on the way.
            connection.execute(text("CREATE DOMAIN pg_temp.timestamptz AS text CHECK (value IS NULL)"))
            connection.execute(
                text("CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql RETURN '2001-01-01'::timestamptz")
            )
            connection.execute(text("SET LOCAL search_path = pg_temp, public"))
            for time in FORGED:
                if write == "insert":
                    connection.execute(text("DELETE FROM user_presence WHERE host_id = 'mine'"))
                written = f"{WRITES[write].format(time=time)} RETURNING updated_at = pg_catalog.now()"
                assert connection.execute(text(written), {"host": "mine"}).scalars().all() == [True], (role, time)


def test_copied_time_is_not_taken(hosts: URL) -> None:
    with psycopg.connect(libpq(hosts)) as connection, connection.cursor() as cursor:
        with cursor.copy("COPY user_presence (host_id, room_id, updated_at) FROM STDIN") as copy:
            copy.write_row(("copied", "r", "infinity"))
        cursor.execute("SELECT updated_at = now() FROM user_presence WHERE host_id = 'copied'")
        assert cursor.fetchall() == [(True,)]
        connection.rollback()


# -- Who is there


@pytest.fixture
def visitor(server: URL, hosts: URL) -> Iterator[Callable[..., Row[Any]]]:
    """What a visitor is told of the host `theirs`, last heard of at a time of its own; all is rolled back."""
    with create_engine(server.set(database=hosts.database), poolclass=NullPool).connect() as connection:
        connection.execute(text("ALTER TABLE user_presence DISABLE TRIGGER USER"))

        def told(seen: str, stale_after: str = "", *, free: bool = True) -> Row[Any]:
            connection.execute(
                text(f"UPDATE user_presence SET updated_at = {seen}, is_available = :free WHERE host_id = 'theirs'"),
                {"free": free},
            )
            connection.execute(text("SET LOCAL ROLE anon"))
            row = connection.execute(text(f"SELECT * FROM host_presence('theirs'{stale_after})")).one()
            connection.execute(text("RESET ROLE"))
            return row

        yield told


CLOCK = "clock_timestamp()"


@pytest.mark.parametrize(
    ("seen", "stale_after", "there"),
    [
        (f"{CLOCK}", "", True),
        (f"{CLOCK} - interval '1 minute 50 seconds'", "", True),
        (f"{CLOCK} - interval '2 minutes 0.000001 seconds'", "", False),
        (f"{CLOCK} - interval '4 minutes 50 seconds'", ", '5 minutes'", True),
        (f"{CLOCK} - interval '5 minutes'", ", '5 minutes'", False),
        (f"{CLOCK} - interval '2 seconds'", ", '1 second'", False),
        (f"{CLOCK}", ", '0 seconds'", False),
        ("'2001-01-01'", ", '1000 years'", True),
        ("'-infinity'", ", '1000 years'", False),
        # A server whose clock was ahead, and what pages could once send.
        (f"{CLOCK} + interval '1 second'", "", True),
        (f"{CLOCK} + interval '3 minutes'", "", False),
        ("'infinity'", "", False),
        ("'infinity'", ", '1000 years'", False),
    ],
)
def test_host_that_was_not_heard_of_is_away(
    visitor: Callable[..., Row[Any]], seen: str, stale_after: str, *, there: bool
) -> None:
    assert visitor(seen, stale_after).is_available is there
    assert visitor(seen, stale_after, free=False).is_available is False


def test_heartbeat_brings_a_host_back(hosts: URL, mode: Mode) -> None:
    role, claims = SENDERS[mode][-1]
    with request(hosts, role, claims) as connection:
        assert presence(connection, "'mine'") == (False, "room of mine", False)
        connection.execute(text(WRITES["upsert"].format(time="'1970-01-01'")), {"host": "mine"})
        assert presence(connection, "'mine'") == (True, "r", True)


def test_visitor_is_told_nothing_more(hosts: URL) -> None:
    with request(hosts, "anon") as connection:
        columns = connection.execute(text("SELECT * FROM host_presence(host_id => 'theirs')")).keys()
        assert list(columns) == ["is_available", "room_id", "updated_at"]
        assert connection.execute(text("SELECT * FROM host_presence('nobody')")).all() == []
        assert connection.execute(text("SELECT * FROM host_presence(NULL)")).all() == []


def presence(connection: Connection, arguments: str) -> tuple[object, ...]:
    """What is said of a host, and whether it was heard of in this transaction."""
    found = connection.execute(
        text(f"SELECT is_available, room_id, updated_at = now() FROM host_presence({arguments})")
    )
    return tuple(found.one())


@pytest.mark.parametrize("role", API_ROLES)
@pytest.mark.parametrize("host", ["theirs", "nobody"])
@pytest.mark.parametrize(("given", "said"), [("NULL", "NULL"), ("'-1 second'", "-00:00:01"), ("'-1 day'", "-1 days")])
def test_time_that_is_none_is_refused(hosts: URL, role: str, host: str, given: str, said: str) -> None:
    with request(hosts, role) as connection, pytest.raises(DBAPIError) as refused:
        connection.execute(text(f"SELECT * FROM host_presence('{host}', {given})"))
    error = refused.value.orig
    assert isinstance(error, errors.InvalidParameterValue)
    assert error.diag.message_primary == f"stale_after is {said}"
    assert error.diag.message_hint == "Give an interval of zero or more"


def test_name_host_presence_is_of_one_function(upgraded: URL) -> None:
    """PostgREST takes a call that two functions could be for an error."""
    found = query(
        upgraded, "SELECT pronargs, pronargdefaults FROM pg_proc WHERE oid = to_regproc('public.host_presence')"
    )
    assert found == [(2, 1)]
