"""A hostile visitor and a hostile user of the authenticated mode: what they try, and how it fails.

An attack is a request as PostgREST makes it, but for its SQL, which may be anything. It is committed. It fails with the
SQLSTATE that is named here, or is let through to no avail; no word of the other user comes back in rows, notices or
errors, and then the database is what it was.
"""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING, NamedTuple

import psycopg2
import pytest
from support import execute, libpq, query, signed_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from sqlalchemy import URL

DENIED = "42501"
NO_COPY_TO_GUARDED_ROWS = "0A000"
NO_SUCH_COLUMN = "42703"
NO_AVAIL = ""

TABLES = ("user_accounts", "call_sessions", "token_usage", "user_presence")
VIEWS = ("active_calls", "daily_billing_summary", "daily_token_usage", "user_token_summary")
OWNERS_COLUMN = {"user_presence": "host_id"}


class Attack(NamedTuple):
    """What is sent in which role and with which claims, and the SQLSTATE of its refusal, or `NO_AVAIL`."""

    sql: str
    refusal: str
    role: str
    claims: str


VISITOR = ("anon", '{"role": "anon"}')
USER = ("authenticated", signed_in("mine"))


def both(refusal: str, *statements: str) -> Iterator[Attack]:
    """Each statement, sent by the visitor and by the user."""
    for sql, who in itertools.product(statements, (VISITOR, USER)):
        yield Attack(sql, refusal, *who)


def visitor(refusal: str, *statements: str) -> Iterator[Attack]:
    yield from (Attack(sql, refusal, *VISITOR) for sql in statements)


def user(refusal: str, *statements: str) -> Iterator[Attack]:
    yield from (Attack(sql, refusal, *USER) for sql in statements)


def on_tables() -> Iterator[Attack]:
    """What can be done with a table, done with each of them."""
    for table in TABLES:
        column = OWNERS_COLUMN.get(table, "user_id")
        theirs = f"{table} WHERE {column} = 'theirs'"
        yield from visitor(
            DENIED,
            f"SELECT * FROM {table}",
            f"SELECT count(*) FROM {table}",
            f"SELECT 1 FROM {table} LIMIT 1",
            f"DELETE FROM {table}",
            f"UPDATE {table} SET {column} = 'anon'",
            f"INSERT INTO {table} DEFAULT VALUES",
            f"COPY {table} TO STDOUT",
            f"COPY {table} FROM STDIN",
            f"SELECT * FROM ts_stat('SELECT to_tsvector(t::text) FROM {table} AS t')",
        )
        yield from user(
            NO_AVAIL,
            f"SELECT * FROM {theirs}",
            f"SELECT * FROM {table} WHERE {column} <> 'mine' OR true",
            f"SELECT * FROM {table} WHERE {column} LIKE 'their%' OR NOT {column} = 'mine'",
            f"SELECT array_agg(t::text) FROM {table} AS t",
            f"SELECT (SELECT max({column}) FROM {table}) FROM {table}",
            f"WITH t AS MATERIALIZED (SELECT * FROM {table}) SELECT * FROM t",
            f"SELECT t.* FROM {table} AS t RIGHT JOIN {table} AS u ON true",
            f"COPY {table} TO STDOUT",
            f"COPY (SELECT * FROM {theirs}) TO STDOUT",
            f"SELECT * FROM ts_stat('SELECT to_tsvector(t::text) FROM {table} AS t')",
            f"SELECT * FROM pg_stats WHERE tablename = '{table}'",
            f"SELECT * FROM {table} TABLESAMPLE bernoulli (100)",
            f"DECLARE c CURSOR FOR SELECT * FROM {table}; FETCH ALL FROM c",
            f"SET LOCAL oblivion.access = 'open'; SELECT * FROM {table}",
            f"SET LOCAL search_path = pg_temp; SELECT * FROM public.{table}",
            f"SET LOCAL request.jwt.claim.sub = 'theirs'; SELECT * FROM {table}",
        )
        yield from both(
            DENIED,
            f"TRUNCATE {table}",
            f"TRUNCATE {table} CASCADE",
            f"SET LOCAL row_security = off; SELECT * FROM {table}",
            f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY",
            f"ALTER TABLE {table} OWNER TO CURRENT_USER",
            f"DROP POLICY {table}_select ON {table}",
            f"CREATE POLICY let_me_in ON {table} USING (true)",
            f"CREATE TRIGGER mine BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()",
            f"CREATE RULE mine AS ON INSERT TO {table} DO ALSO NOTHING",
            f"CREATE INDEX ON {table} ({column})",
            f"CREATE VIEW public.mine AS SELECT * FROM {table}",
            f"DROP TABLE {table}",
            f"COPY {table} TO PROGRAM 'cat'",
            f"COPY {table} TO '/nowhere/stolen'",
        )
        grant = f"GRANT ALL ON {table} TO PUBLIC"
        yield from visitor(DENIED, grant)
        yield from user(NO_AVAIL, grant)  # a warning, for who has a privilege that cannot be passed on


def on_views() -> Iterator[Attack]:
    """What can be done with a view, done with each of them."""
    for view in VIEWS:
        yield from visitor(DENIED, f"SELECT * FROM {view}", f"SELECT count(*) FROM {view}")
        yield from user(
            NO_AVAIL,
            f"SELECT * FROM {view}",
            f"SELECT array_agg(v::text) FROM {view} AS v",
            f"COPY (SELECT * FROM {view}) TO STDOUT",
        )
        yield from both(
            DENIED,
            f"ALTER VIEW {view} SET (security_invoker = false)",
            f"CREATE OR REPLACE VIEW {view} AS SELECT 1",
        )
    yield from both(
        DENIED,
        "UPDATE active_calls SET room_id = 'mine'",
        "DELETE FROM active_calls",
        "INSERT INTO active_calls (room_id, mode) VALUES ('mine', 'video')",
    )


BY_HAND = [
    # Accounts: the balance, the tier, and whose they are.
    *both(
        DENIED,
        "UPDATE user_accounts SET tokens_remaining = 1000000 WHERE user_id = 'mine'",
        "UPDATE user_accounts SET subscription_tier = 'enterprise' WHERE user_id = 'mine'",
        "UPDATE user_accounts SET user_id = 'theirs' WHERE user_id = 'mine'",
        "UPDATE user_accounts SET updated_at = '2001-01-01', email = 'x'",
        "UPDATE user_accounts SET (email, tokens_remaining) = ('x', 9)",
        "INSERT INTO user_accounts (user_id) VALUES ('third')",
        "INSERT INTO user_accounts (user_id, email) VALUES ('theirs', 'x') ON CONFLICT DO NOTHING",
        "INSERT INTO user_accounts (user_id, email) VALUES ('theirs', 'x') ON CONFLICT (user_id)"
        " DO UPDATE SET email = excluded.email RETURNING *",
        "INSERT INTO user_accounts (user_id, email) VALUES ('mine', 'x') ON CONFLICT (user_id)"
        " DO UPDATE SET tokens_remaining = 100 RETURNING *",
        "MERGE INTO user_accounts AS a USING (VALUES ('theirs')) AS v (id) ON a.user_id = v.id"
        " WHEN MATCHED THEN UPDATE SET tokens_remaining = 0 WHEN NOT MATCHED THEN DO NOTHING",
        "DELETE FROM user_accounts WHERE user_id = 'theirs' RETURNING *",
        "DELETE FROM user_accounts WHERE user_id = 'mine'",
        "WITH gone AS (DELETE FROM user_accounts RETURNING *) SELECT * FROM gone",
    ),
    *user(
        NO_AVAIL,
        "UPDATE user_accounts SET email = 'mine' WHERE user_id = 'theirs' RETURNING *",
        "UPDATE user_accounts AS a SET email = b.email FROM user_accounts AS b"
        " WHERE a.user_id = 'mine' AND b.user_id = 'theirs' RETURNING *",
        "UPDATE user_accounts SET email = (SELECT email FROM user_accounts WHERE user_id = 'theirs')"
        " WHERE user_id = 'theirs' RETURNING *",
        "SELECT * FROM user_accounts WHERE user_id = 'theirs' FOR UPDATE",
        "SELECT * FROM user_accounts WHERE email::inet = '::1' AND user_id = 'theirs'",
    ),
    *user("22P02", "SELECT * FROM user_accounts WHERE email::inet = '::1'"),
    # Calls: other users', and what a call costs.
    *both(
        DENIED,
        "INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('r', 'theirs', 'video')",
        "INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('r', NULL, 'video')",
        "INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('r', 'anonymous_1', 'video')",
        "INSERT INTO call_sessions (room_id, mode) VALUES ('r', 'video') RETURNING *",
        "INSERT INTO call_sessions (room_id, user_id, mode, credit_cost) VALUES ('r', 'mine', 'video', -1000)",
        "INSERT INTO call_sessions (room_id, user_id, mode, credit_cost) VALUES ('r', 'mine', 'video', 5)",
        "INSERT INTO call_sessions (room_id, user_id, mode, credit_cost) VALUES ('r', 'mine', 'video', NULL)",
        "INSERT INTO call_sessions (room_id, user_id, mode, end_time) VALUES ('r', 'mine', 'video', now())",
        "INSERT INTO call_sessions (room_id, user_id, mode, created_at) VALUES ('r', 'mine', 'video', '2001-01-01')",
        "INSERT INTO call_sessions (id, room_id, user_id, mode) VALUES (gen_random_uuid(), 'r', 'mine', 'video')",
        "INSERT INTO call_sessions (room_id, user_id, mode) SELECT room_id, 'theirs', mode FROM call_sessions",
        "UPDATE call_sessions SET credit_cost = 0",
        "UPDATE call_sessions SET end_time = now() WHERE user_id = 'mine'",
        "UPDATE call_sessions SET user_id = 'mine' WHERE user_id = 'theirs' RETURNING *",
        "DELETE FROM call_sessions WHERE user_id = 'mine' RETURNING *",
        "SELECT * FROM call_sessions FOR UPDATE",
    ),
    *visitor(DENIED, "COPY call_sessions (room_id, user_id, mode) FROM STDIN"),
    *user(NO_COPY_TO_GUARDED_ROWS, "COPY call_sessions (room_id, user_id, mode) FROM STDIN"),
    # Usage: only ever written by others.
    *both(
        DENIED,
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        " VALUES ('theirs', 's', 1, 'video', false)",
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        " VALUES ('mine', 's', 0, 'video', false) RETURNING *",
        "UPDATE token_usage SET tokens_used = 0",
        "UPDATE token_usage SET user_id = 'theirs' WHERE user_id = 'mine'",
        "DELETE FROM token_usage WHERE user_id = 'mine'",
        "DELETE FROM token_usage USING user_accounts RETURNING *",
        "SELECT * FROM token_usage FOR SHARE",
        "LOCK TABLE token_usage IN ACCESS EXCLUSIVE MODE",
        "MERGE INTO token_usage AS t USING token_usage AS u ON t.id = u.id WHEN MATCHED THEN DELETE",
    ),
    # Presence: other hosts, and the secret of their rooms.
    *both(
        DENIED,
        "INSERT INTO user_presence (host_id, room_id) VALUES ('theirs', 'mine')",
        "INSERT INTO user_presence (host_id, room_id) VALUES ('theirs', 'mine') ON CONFLICT (host_id) DO NOTHING",
        "INSERT INTO user_presence (host_id, room_id) VALUES ('theirs', 'mine') ON CONFLICT (host_id)"
        " DO UPDATE SET host_id = excluded.host_id, room_id = excluded.room_id RETURNING *",
        "INSERT INTO user_presence (host_id, room_id) VALUES ('third', 'mine') RETURNING *",
        "INSERT INTO user_presence (host_id, room_id) VALUES ('mine', 'x') ON CONFLICT (host_id)"
        " DO UPDATE SET host_id = 'theirs'",
        "INSERT INTO user_presence (host_id, room_id) VALUES ('mine', 'x') ON CONFLICT (host_id)"
        " DO UPDATE SET host_id = 'third' RETURNING *",
        "INSERT INTO user_presence (host_id, room_id) VALUES ('mine', 'x'), ('theirs', 'x') ON CONFLICT (host_id)"
        " DO UPDATE SET room_id = excluded.room_id",
        "UPDATE user_presence SET host_id = 'theirs' WHERE host_id = 'mine'",
        "UPDATE user_presence SET host_id = 'third'",
        "MERGE INTO user_presence AS p USING (VALUES ('theirs')) AS v (id) ON p.host_id = v.id WHEN MATCHED THEN"
        " UPDATE SET room_id = 'mine' WHEN NOT MATCHED THEN INSERT (host_id, room_id) VALUES (id, 'r')",
    ),
    *user(
        NO_AVAIL,
        "UPDATE user_presence SET room_id = 'mine' WHERE host_id = 'theirs' RETURNING *",
        "UPDATE user_presence SET host_id = 'mine' WHERE host_id = 'theirs' RETURNING *",
        "DELETE FROM user_presence WHERE host_id = 'theirs' RETURNING *",
        "DELETE FROM user_presence WHERE host_id <> 'mine' RETURNING *",
        "SELECT * FROM user_presence WHERE host_id = 'theirs' FOR UPDATE",
        "SELECT room_token FROM user_presence WHERE room_token LIKE 'token of t%'",
    ),
    *user(NO_COPY_TO_GUARDED_ROWS, "COPY user_presence (host_id, room_id) FROM STDIN"),
    *both(
        NO_SUCH_COLUMN,
        "SELECT room_token FROM host_presence('theirs')",
        "SELECT h.room_token FROM host_presence('theirs') AS h",
    ),
    # Rates: read, and no more.
    *both(
        DENIED,
        "UPDATE token_rates SET tokens_per_minute = 0",
        "INSERT INTO token_rates VALUES ('video', true, now(), 0)",
        "DELETE FROM token_rates",
        "TRUNCATE token_rates",
    ),
    # The switch, and what else is the owner's.
    *both(
        DENIED,
        "CREATE OR REPLACE FUNCTION oblivion.open_access() RETURNS boolean LANGUAGE sql IMMUTABLE RETURN true",
        "ALTER FUNCTION oblivion.open_access() RENAME TO closed_access",
        "DROP FUNCTION oblivion.current_user_id() CASCADE",
        "CREATE OR REPLACE FUNCTION public.host_presence(host_id text) RETURNS text LANGUAGE sql RETURN 'x'",
        "CREATE FUNCTION public.mine() RETURNS text LANGUAGE sql RETURN 'x'",
        "CREATE TABLE public.mine (a integer)",
        "CREATE SCHEMA mine",
        "SELECT * FROM oblivion.alembic_version",
        "DELETE FROM oblivion.alembic_version",
        "DROP SCHEMA oblivion CASCADE",
        "ALTER SCHEMA oblivion RENAME TO mine",
        "GRANT USAGE ON SCHEMA oblivion TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES FOR ROLE service_role GRANT ALL ON TABLES TO anon",
        "ALTER ROLE anon BYPASSRLS",
        "SET SESSION AUTHORIZATION anon",
        "SET ROLE pg_read_all_data",
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "ALTER PUBLICATION supabase_realtime DROP TABLE user_accounts",
        "SELECT update_updated_at_column()",
        "CREATE SUBSCRIPTION mine CONNECTION '' PUBLICATION mine WITH (connect = false)",
    ),
]


def leaks() -> Iterator[Attack]:
    """Functions of the attacker's that tell of every row they see, cheap enough to come first in any plan."""
    leak = (
        "CREATE FUNCTION pg_temp.leak(anyelement) RETURNS boolean LANGUAGE plpgsql COST 0.0000001"
        " AS $$ BEGIN RAISE NOTICE 'leaked %', $1; RETURN true; END $$; "
    )
    for relation in (*TABLES, *VIEWS):
        yield from user(
            NO_AVAIL,
            f"{leak} SELECT * FROM {relation} AS r WHERE pg_temp.leak(r::text)",
            f"{leak} SELECT count(*) FILTER (WHERE pg_temp.leak(r::text)) FROM {relation} AS r",
            f"{leak} SELECT 1 FROM {relation} AS r ORDER BY pg_temp.leak(r::text)",
            f"{leak} SELECT 1 FROM {relation} AS r GROUP BY r HAVING bool_and(pg_temp.leak(r::text))",
        )
        yield from visitor(DENIED, f"{leak} SELECT * FROM {relation} AS r WHERE pg_temp.leak(r::text)")
    yield from user(
        NO_AVAIL,
        f"{leak} UPDATE user_accounts SET email = email WHERE pg_temp.leak(email) AND user_id = 'theirs'",
        f"{leak} DELETE FROM user_presence WHERE pg_temp.leak(room_token) AND host_id = 'theirs'",
        f"{leak} SELECT 1 FROM token_usage AS t JOIN user_accounts AS a ON pg_temp.leak(a.email || t.session_id)",
        f"{leak} SELECT 1 FROM user_accounts WHERE CASE WHEN user_id <> 'mine' THEN pg_temp.leak(email) END",
    )


# How each function that runs with its owner's rights is reached.
DEFINERS = {"oblivion.host_presence": "SELECT * FROM public.host_presence('mine')"}


def search_paths() -> Iterator[Attack]:
    """Decoys before what the owner's functions read: they must take neither these nor what comes with them."""
    raises = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'as %', current_user; END $$"
    decoys = (
        "CREATE TEMP TABLE user_presence (host_id text, is_available boolean, room_id text, updated_at timestamptz);"
        f" CREATE FUNCTION pg_temp.equal(text, text) RETURNS boolean {raises};"
        " CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.equal);"
        f" CREATE FUNCTION pg_temp.host_presence(host_id text) RETURNS boolean {raises};"
    )
    for path, call in itertools.product(
        ("pg_temp, public", "pg_temp, pg_catalog, public", "public, pg_temp", "pg_temp"), DEFINERS.values()
    ):
        yield from both(NO_AVAIL, f"{decoys} SET LOCAL search_path = {path}; {call}")


# What a JWT may hold where it should hold who is signed in. All of it is signed, for PostgREST passes on nothing else.
CLAIMS = [
    "", " ", "null", "true", "7", '"theirs"', '["theirs"]', "[]", "{}", "not json",
    '{"sub": "theirs', "{'sub': 'theirs'}",
    '{"sub": null}', '{"sub": ""}', '{"sub": 7}', '{"sub": true}', '{"sub": ["theirs"]}', '{"sub": {"sub": "theirs"}}',
    '{"SUB": "theirs"}', '{"Sub": "theirs"}', '{"sub ": "theirs"}', '{"user_id": "theirs"}', '{"email": "theirs"}',
    '{"role": "service_role"}', '{"sub": "theirs "}', '{"sub": " theirs"}', '{"sub": "THEIRS"}', '{"sub": "their%"}',
    '{"sub": "theirs\\u0000"}', '{"sub": "\\ud800"}', '{"sub": "theirs\' OR true --"}', '{"sub": "*"}',
    '{"sub": "' + "theirs" * 200_000 + '"}', "[" * 100_000, '{"sub":' * 50_000, '{"a": "' + "x" * 1_000_000 + '"}',
    '{"sub": 1e400}', '{"claims": {"sub": "theirs"}}', '[{"sub": "theirs"}]',
]  # fmt: skip
NAMES = ("'theirs'", "'mine'", "''", "NULL")


def forged(claims: str) -> Iterator[Attack]:
    """All that a user may do, tried with claims that name nobody."""
    for refusal, sql in (
        *((NO_AVAIL, f"SELECT * FROM {relation}") for relation in (*TABLES, *VIEWS)),
        (NO_AVAIL, "UPDATE user_accounts SET email = 'x' RETURNING *"),
        (NO_AVAIL, "DELETE FROM user_presence RETURNING *"),
        *((DENIED, f"INSERT INTO user_presence (host_id, room_id) VALUES ({host}, 'r')") for host in NAMES),
        *(
            (DENIED, f"INSERT INTO call_sessions (room_id, mode, user_id) VALUES ('r', 'video', {name})")
            for name in NAMES
        ),
    ):
        yield Attack(sql, refusal, "authenticated", claims)


STATE = """
SELECT string_agg(state, E'\\n' ORDER BY state) FROM (
  SELECT u::text AS state FROM public.user_accounts AS u
  UNION ALL SELECT c::text FROM public.call_sessions AS c
  UNION ALL SELECT t::text FROM public.token_usage AS t
  UNION ALL SELECT p::text FROM public.user_presence AS p
  UNION ALL SELECT r::text FROM public.token_rates AS r
  UNION ALL SELECT concat(relname, relacl) FROM pg_class
  WHERE relnamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)
  UNION ALL SELECT concat(proname, proacl, prosrc) FROM pg_proc
  WHERE pronamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)
  UNION ALL SELECT concat(nspname, nspacl) FROM pg_namespace WHERE nspname IN ('public', 'oblivion')
) AS everything
"""


@pytest.fixture(scope="module")
def besieged(closed: URL) -> URL:
    """The database that is attacked, with statistics, which hold values of rows, too."""
    execute(closed, "ANALYZE")
    return closed


@pytest.fixture(autouse=True)
def blocking() -> Iterator[None]:
    """COPY needs psycopg2 as it is by default; a command that ran here before let Ctrl-C cancel its statements."""
    before = psycopg2.extensions.get_wait_callback()
    psycopg2.extensions.set_wait_callback(None)
    yield
    psycopg2.extensions.set_wait_callback(before)


def sent(connection: psycopg2.extensions.connection, attack: Attack) -> tuple[str, str]:
    """Send an attack, as PostgREST would, and commit it: the SQLSTATE, and all that came back."""
    del connection.notices[:]
    file = io.StringIO()
    with connection.cursor() as cursor:
        try:
            settings = "SELECT set_config('role', %s, true), set_config('request.jwt.claims', %s, true)"
            cursor.execute(settings, (attack.role, attack.claims))
            if " STDIN" in attack.sql or " STDOUT" in attack.sql:
                cursor.copy_expert(attack.sql, file)
                seen = file.getvalue()
            else:
                cursor.execute(attack.sql)
                seen = repr(cursor.fetchall()) if cursor.description else ""
            connection.commit()
            state = NO_AVAIL
        except psycopg2.Error as error:
            connection.rollback()
            state, seen = error.pgcode or "?", str(error).partition("LINE ")[0]
        cursor.execute("DISCARD TEMP")
        connection.commit()
    return state, f"{seen}{connection.notices}"


def successes(besieged: URL, attacks: Iterable[Attack]) -> list[tuple[object, ...]]:
    """Those of the attacks, sent one after the other, that did not fail as they should, and what came of them."""
    owner = psycopg2.connect(libpq(besieged))
    owner.autocommit = True
    watch = owner.cursor()

    def state() -> object:
        watch.execute(STATE)
        return watch.fetchone()

    before = state()
    connection = psycopg2.connect(libpq(besieged.set(username="authenticator", password="authenticator")))
    found: list[tuple[object, ...]] = []
    for attack in attacks:
        refusal, seen = sent(connection, attack)
        after = state()
        if refusal != attack.refusal or "theirs" in seen or after != before:
            found.append((attack, refusal, seen, "changed" if after != before else "unchanged"))
            before = after
    connection.close()
    owner.close()
    return found


def repel(besieged: URL, request: pytest.FixtureRequest, attacks: Iterable[Attack]) -> None:
    """Send attacks, of which each has to fail, and count them."""
    its = list(attacks)
    assert its
    assert successes(besieged, its) == []
    request.node.user_properties.append(("attacks", len(its)))


BY_KIND = {
    "tables": on_tables,
    "views": on_views,
    "hand": lambda: iter(BY_HAND),
    "leaky functions": leaks,
    "search_path": search_paths,
}


@pytest.mark.parametrize("kind", BY_KIND)
def test_attack_fails(besieged: URL, request: pytest.FixtureRequest, kind: str) -> None:
    repel(besieged, request, BY_KIND[kind]())


def test_forged_claims_reach_nothing(besieged: URL, request: pytest.FixtureRequest) -> None:
    repel(besieged, request, itertools.chain.from_iterable(forged(claims) for claims in CLAIMS))


def test_no_function_of_the_private_schema_can_be_called(besieged: URL, request: pytest.FixtureRequest) -> None:
    calls = query(
        besieged,
        """
        SELECT format('SELECT * FROM %s(%s)', oid::regproc, (
          SELECT string_agg(format('NULL::%s', type::regtype), ', ') FROM unnest(proargtypes::oid[]) AS type
        ))
        FROM pg_proc
        WHERE pronamespace = 'oblivion'::regnamespace
        """,
    )
    assert len(calls) >= 4
    roles = (VISITOR, USER, ("service_role", '{"role": "service_role"}'))
    repel(besieged, request, (Attack(str(sql), DENIED, *who) for (sql,) in calls for who in roles))


def test_type_that_a_session_made_is_not_the_next_requests(besieged: URL) -> None:
    """An empty search_path still finds types in pg_temp, where a request may have left one for the session's next."""
    authenticator = besieged.set(username="authenticator", password="authenticator")
    connection = psycopg2.connect(libpq(authenticator))
    left = "; ".join(
        [
            (
                "CREATE FUNCTION pg_temp.took(anyelement) RETURNS boolean LANGUAGE plpgsql"
                " AS $$ BEGIN RAISE EXCEPTION 'took %', $1; END $$"
            ),
            *(
                f"CREATE DOMAIN pg_temp.{name} AS pg_catalog.{name} CHECK (pg_temp.took(value))"
                for name in ("jsonb", "text", "bool", "name", "timestamptz", "uuid", "numeric")
            ),
        ]
    )
    try:
        with connection.cursor() as cursor:
            for claims, sql in (
                (USER[1], left),
                (signed_in("theirs"), "SELECT * FROM user_accounts"),
                (signed_in("theirs"), "SELECT count(*) FROM call_sessions"),
                (signed_in("theirs"), "UPDATE user_accounts SET email = email"),
                (signed_in("theirs"), "UPDATE user_presence SET room_id = room_id"),
                (signed_in("theirs"), "SELECT count(*) FROM public.host_presence('theirs')"),
            ):
                cursor.execute("SELECT set_config('role', 'authenticated', true)")
                cursor.execute("SELECT set_config('request.jwt.claims', %s, true)", (claims,))
                cursor.execute(sql)
                assert not cursor.description or cursor.fetchone()
                connection.commit()
    finally:
        connection.close()


def test_every_function_with_its_owners_rights_is_attacked(besieged: URL) -> None:
    found = query(
        besieged,
        "SELECT concat(pronamespace::regnamespace, '.', proname) FROM pg_proc WHERE prosecdef"
        " AND pronamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)",
    )
    assert {name for (name,) in found} == DEFINERS.keys()


@pytest.mark.parametrize(("kind", "at_least"), [("tables", 30), ("views", 10), ("hand", 30), ("leaky functions", 30)])
def test_attack_that_succeeds_is_seen(open_to_both: URL, kind: str, at_least: int) -> None:
    """In the open mode many do, until one of them has deleted what there was."""
    execute(open_to_both, "ANALYZE")
    assert len(successes(open_to_both, BY_KIND[kind]())) >= at_least
