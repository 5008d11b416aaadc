"""How accounts come to be: once for each user, with as many tokens as the owner says, and for nobody else."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError
from support import PROJECT, execute, libpq, query, request, run, signed_in, wait_until
from test_attacks import CLAIMS

import oblivion_schema
from oblivion_schema.errors import sqlstate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import URL

    from oblivion_schema.tables.access import Mode, PageBilling

pytestmark = pytest.mark.few(url="authenticated-trusted")

OPEN_ACCOUNT = "SELECT * FROM open_account()"
AUDIT = "SELECT * FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0"


def fill(url: URL, mode: Mode, pages: PageBilling) -> None:
    """A database whose users may sign up."""
    oblivion_schema.upgrade(url, access=mode, pages=pages, demo=False)
    execute(url, "SELECT oblivion.allow_sign_up(100)")


@pytest.fixture(params=["open-trusted", "open-metered", "authenticated-trusted", "authenticated-metered"])
def url(request: pytest.FixtureRequest, new_sort: Callable[..., URL], templates: Callable[..., URL]) -> URL:
    """A database whose users may sign up, in each combination of modes."""
    return new_sort(copy_of=templates("supabase-new", fill, *str(request.param).split("-")))


@pytest.fixture
def closed(new_sort: Callable[..., URL], templates: Callable[..., URL]) -> URL:
    """The one of them that it is for."""
    return new_sort(copy_of=templates("supabase-new", fill, "authenticated", "trusted"))


def ask(url: URL, sql: str = OPEN_ACCOUNT, *, role: str = "authenticated", claims: str = signed_in("new")) -> Any:
    """The first row that a request gets, which is committed."""
    with request(url, role, claims) as connection:
        row = tuple(connection.exec_driver_sql(sql, execution_options={"no_parameters": True}).one())
        connection.commit()
        return row


def ledger(url: URL, user: str = "new") -> list[tuple[object, ...]]:
    """What the ledger says of a user."""
    return query(url, f"SELECT kind, tokens, key FROM token_ledger WHERE user_id = '{user}' ORDER BY id")


GIVEN = [("opening", 0, None), ("top_up", 100, "oblivion.sign_up")]


@pytest.mark.server
def test_user_gets_an_account_once(url: URL) -> None:
    assert ask(url) == ("new", "ok", 100)
    for _ in range(3):
        assert ask(url) == ("new", "known", 100)
    assert query(url, "SELECT user_id, tokens_remaining, subscription_tier FROM user_accounts") == [
        ("new", 100, "free")
    ]
    assert ledger(url) == GIVEN
    assert query(url, AUDIT) == []


def test_call_of_a_new_user_is_billed(closed: URL) -> None:
    start = "SELECT status FROM start_call('new', 'r', 'video')"
    assert ask(closed, start) == ("not_billed",)
    ask(closed)
    assert ask(closed, start) == ("ok",)


def test_nobody_signs_up_until_the_owner_says_with_how_many_tokens(empty: URL) -> None:
    oblivion_schema.upgrade(empty, access="authenticated", demo=False)
    assert ask(empty) == ("new", "closed", None)
    for tokens, expected in (
        (0, ("ok", 0)),
        (7, ("ok", 7)),
        (None, ("closed", None)),
        (2_147_483_647, ("ok", 2**31 - 1)),
    ):
        execute(empty, f"SELECT oblivion.allow_sign_up({'NULL' if tokens is None else tokens})")
        assert ask(empty, claims=signed_in(f"with {tokens}")) == (f"with {tokens}", *expected)
    assert ask(empty, claims=signed_in("with 7")) == ("with 7", "known", 7), "the setting is of new accounts alone"
    with pytest.raises(DBAPIError, match="tokens is -1") as refused:
        execute(empty, "SELECT oblivion.allow_sign_up(-1)")
    assert sqlstate(refused.value) == "22023"
    assert query(empty, AUDIT) == []


def test_known_user_gets_nothing(url: URL) -> None:
    """Whoever opened the account, and whatever became of its balance."""
    execute(url, "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('new', 5)")
    assert ask(url) == ("new", "known", 5)
    execute(url, "SELECT top_up('new', 20, 'paid'); UPDATE user_accounts SET tokens_remaining = 0")
    assert ask(url) == ("new", "known", 0)
    execute(url, "SELECT oblivion.allow_sign_up(NULL)")
    assert ask(url) == ("new", "known", 0)


@pytest.mark.parametrize(
    "gone",
    [
        "DELETE FROM user_accounts",
        "DELETE FROM user_accounts; SELECT oblivion.trim_ledger(clock_timestamp() + interval '1 day')",
        "TRUNCATE user_accounts CASCADE",
        "UPDATE user_accounts SET user_id = 'renamed'",
        "SELECT top_up('new', 20, 'paid'); DELETE FROM user_accounts",
        "UPDATE user_accounts SET tokens_remaining = 0; DELETE FROM user_accounts",
    ],
)
@pytest.mark.few(gone=("DELETE FROM user_accounts", "UPDATE user_accounts SET user_id = 'renamed'"))
def test_user_whose_account_is_gone_gets_an_empty_one(url: URL, gone: str) -> None:
    ask(url)
    execute(url, gone)
    assert ask(url) == ("new", "ok", 0)
    assert ask(url) == ("new", "known", 0)
    execute(url, "DELETE FROM user_accounts")
    assert ask(url) == ("new", "ok", 0)
    assert query(url, AUDIT) == []


@pytest.mark.parametrize("kept", ["closing", "carried"])
def test_metered_page_opens_a_closed_account_with_no_more_than_it_had(
    new_sort: Callable[..., URL], templates: Callable[..., URL], kept: str
) -> None:
    """The other way to an account, that of pages that sign in by an upsert, is no way around."""
    url = new_sort(copy_of=templates("supabase-new", fill, "authenticated", "metered"))
    ask(url)
    execute(url, "UPDATE user_accounts SET tokens_remaining = 0; DELETE FROM user_accounts")
    if kept == "carried":
        execute(url, "SELECT oblivion.trim_ledger(clock_timestamp() + interval '1 day')")
    assert query(url, "SELECT kind FROM token_ledger ORDER BY id DESC LIMIT 1") == [(kept,)]
    upsert = "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('new', 100) RETURNING tokens_remaining"
    assert ask(url, upsert) == (0,)
    assert query(url, AUDIT) == []


def test_metered_page_opens_an_account_with_no_more_than_sign_up_gives(
    new_sort: Callable[..., URL], templates: Callable[..., URL]
) -> None:
    url = new_sort(copy_of=templates("supabase-new", fill, "authenticated", "metered"))
    upsert = "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('new', 100) RETURNING tokens_remaining"
    for tokens, expected in (("10", 10), ("0", 0), ("200", 100), ("NULL", 100)):
        execute(url, f"DELETE FROM user_accounts; TRUNCATE token_ledger; SELECT oblivion.allow_sign_up({tokens})")
        assert ask(url, upsert) == (expected,)


# -- Who may not


@pytest.mark.parametrize("role", ["anon", "service_role"])
def test_nobody_else_may_call_it(url: URL, role: str) -> None:
    with pytest.raises(DBAPIError) as refused:
        ask(url, role=role)
    assert sqlstate(refused.value) == "42501"
    assert query(url, "SELECT * FROM user_accounts") == []


def test_claims_open_the_account_of_the_user_they_name_or_none(url: URL) -> None:
    for number, claims in enumerate(CLAIMS):
        try:
            named = json.loads(claims)["sub"]
        except Exception:  # noqa: BLE001 - whatever is wrong with them
            named = None
        execute(url, "DELETE FROM user_accounts")
        try:
            user, status, _ = ask(url, claims=claims)
        except DBAPIError as error:
            assert sqlstate(error) in {"42501", "54000"}, claims[:100]  # noqa: PT017
            assert query(url, "SELECT * FROM user_accounts") == []
        else:
            assert (user, status) == (named, "ok"), number
            assert query(url, "SELECT user_id FROM user_accounts") == [(named,)]


@pytest.mark.parametrize(
    "claims",
    ['{"sub": "new", "is_anonymous": true}', '{"sub": "new", "is_anonymous": "true"}', '{"sub": "anonymous_1"}'],
)
def test_anonymous_user_gets_none(url: URL, claims: str) -> None:
    """Supabase makes as many of them as anybody likes."""
    assert ask(url, claims=claims)[1:] == ("closed", None)
    assert query(url, "SELECT * FROM user_accounts") == []


def test_user_who_was_anonymous_gets_one_later(closed: URL) -> None:
    assert ask(closed, claims='{"sub": "new", "is_anonymous": true}') == ("new", "closed", None)
    assert ask(closed, claims='{"sub": "new", "is_anonymous": false}') == ("new", "ok", 100)
    assert ask(closed, claims='{"sub": "new", "is_anonymous": true}') == ("new", "known", 100)


# -- At the same time


@contextmanager
def session(url: URL, isolation: str) -> Iterator[psycopg2.extensions.cursor]:
    """A session of the new user."""
    connection = psycopg2.connect(libpq(url.set(username="authenticator", password="authenticator")))
    with connection.cursor() as cursor:
        cursor.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {isolation}")
        cursor.execute("SELECT set_config('role', 'authenticated', false)")
        cursor.execute("SELECT set_config('request.jwt.claims', %s, false)", (signed_in("new"),))
        connection.commit()
        yield cursor
    connection.close()


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.server
def test_two_tabs_open_one_account(closed: URL, isolation: str) -> None:
    with session(closed, isolation) as one, session(closed, isolation) as other:
        other.execute("SELECT pg_backend_pid()")
        [(pid,)] = other.fetchall()
        one.execute(OPEN_ACCOUNT)
        answers: list[object] = []

        def open_too() -> None:
            try:
                other.execute(OPEN_ACCOUNT)
                answers.extend(other.fetchall())
                other.connection.commit()
            except psycopg2.Error as error:
                answers.append(error.pgcode)

        waiting = Thread(target=open_too)
        waiting.start()
        waits = f"SELECT EXISTS (SELECT FROM pg_locks WHERE pid = {pid} AND NOT granted)"
        wait_until(lambda: query(closed, waits) == [(True,)])
        one.connection.commit()
        waiting.join()
    assert answers == [("new", "known", 100) if isolation == "READ COMMITTED" else "40001"]
    assert ledger(closed) == GIVEN


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.server
def test_tokens_are_given_once_even_if_the_account_is_deleted_meanwhile(closed: URL, isolation: str) -> None:
    """The second tab began before the first one opened the account, which is gone again when the second one asks."""
    with session(closed, isolation) as late:
        late.execute("SELECT count(*) FROM user_accounts")
        assert ask(closed) == ("new", "ok", 100)
        execute(closed, "DELETE FROM user_accounts")
        try:
            late.execute(OPEN_ACCOUNT)
            late.connection.commit()
        except psycopg2.Error as error:
            assert error.pgcode in {"23505", "40001"}  # noqa: PT017
    assert [row for row in ledger(closed) if row[0] == "top_up"] == [GIVEN[1]]
    assert query(closed, "SELECT coalesce(sum(tokens_remaining), 0) FROM user_accounts") == [(0,)]
    assert query(closed, AUDIT) == []


# -- On Supabase

[TRIGGER] = re.findall(
    r"```sql\n(CREATE TRIGGER.*?)```", (PROJECT / "docs" / "sign-up.md").read_text(encoding="utf-8"), flags=re.DOTALL
)
AUTH = f"""
CREATE SCHEMA auth;
CREATE TABLE auth.users (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(), email varchar(255), is_anonymous boolean NOT NULL DEFAULT false
);
{TRIGGER};
GRANT USAGE ON SCHEMA auth TO pg_monitor;
GRANT ALL ON auth.users TO pg_monitor;
"""
# pg_monitor stands for supabase_auth_admin, who has nothing to do with our tables.
SIGN_UP = "INSERT INTO auth.users (email, is_anonymous) VALUES ('ada@example.org', {}) RETURNING id::text"


@pytest.fixture
def supabase(new_sort: Callable[..., URL], templates: Callable[..., URL]) -> URL:
    """A database with the trigger of the docs on Supabase's table of users."""
    url = new_sort(copy_of=templates("superuser", fill, "authenticated", "trusted"))
    execute(url, AUTH)
    return url


def sign_up(url: URL, *, anonymous: bool = False) -> tuple[str, list[str]]:
    """Who signed up, and which warnings there were."""
    connection = psycopg2.connect(libpq(url))
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE pg_monitor")
        cursor.execute(SIGN_UP.format(anonymous))
        [(user,)] = cursor.fetchall()
        connection.commit()
    warnings = [notice for notice in connection.notices if notice.startswith("WARNING")]
    connection.close()
    assert query(url, f"SELECT count(*) FROM auth.users WHERE id = '{user}'") == [(1,)], "it signs up whatever happens"
    return user, warnings


def test_supabase_user_has_an_account_from_the_first_moment(supabase: URL) -> None:
    user, warnings = sign_up(supabase)
    assert warnings == []
    found = query(supabase, "SELECT user_id, tokens_remaining, email FROM user_accounts")
    assert found == [(user, 100, "ada@example.org")]
    assert ledger(supabase, user) == GIVEN
    assert ask(supabase, claims=signed_in(user)) == (user, "known", 100)
    assert run("check", url=supabase).status == 0


def test_supabase_user_who_is_anonymous_or_not_let_in_has_none(supabase: URL) -> None:
    assert sign_up(supabase, anonymous=True)[1] == []
    execute(supabase, "SELECT oblivion.allow_sign_up(NULL)")
    assert sign_up(supabase)[1] == []
    assert query(supabase, "SELECT * FROM user_accounts") == []


@pytest.mark.parametrize(
    "broken",
    [
        "ALTER TABLE user_accounts ADD CHECK (false)",
        "ALTER TABLE user_accounts RENAME TO others",
        "ALTER TABLE auth.users RENAME id TO key; ALTER TABLE auth.users ADD id uuid",
        "DROP FUNCTION oblivion.make_account(text, text, boolean)",
        "DROP TABLE oblivion.sign_up",
        (
            "CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;"
            " CREATE TRIGGER fails AFTER INSERT ON token_ledger FOR EACH ROW EXECUTE FUNCTION fails()"
        ),
    ],
)
@pytest.mark.few(broken="ALTER TABLE user_accounts ADD CHECK (false)")
def test_supabase_signs_its_user_up_if_our_function_fails(supabase: URL, broken: str) -> None:
    execute(supabase, broken)
    connection = psycopg2.connect(libpq(supabase))
    with connection.cursor() as cursor:
        cursor.execute("SET ROLE pg_monitor; INSERT INTO auth.users (email) VALUES ('x')")
        connection.commit()
    [warning] = [notice for notice in connection.notices if notice.startswith("WARNING")]
    assert "got no account" in warning
    assert "open_account() opens it" in warning
    connection.close()
    assert query(supabase, "SELECT email FROM auth.users") == [("x",)]


def test_supabase_does_not_wait_for_long_for_who_locks_accounts(supabase: URL) -> None:
    """A revision, for instance. The user's page calls open_account() later."""
    locker = psycopg2.connect(libpq(supabase))
    with locker.cursor() as cursor:
        cursor.execute("LOCK TABLE user_accounts IN ACCESS EXCLUSIVE MODE")
        user, warnings = sign_up(supabase)
    locker.close()
    assert "55P03" in warnings[0]
    assert ask(supabase, claims=signed_in(user)) == (user, "ok", 100)


def test_trigger_function_does_nothing_for_another_table(supabase: URL) -> None:
    execute(
        supabase,
        "CREATE TABLE users (id text, email text);"
        " CREATE TRIGGER t AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION oblivion.open_account_of_user();"
        " INSERT INTO users VALUES ('x', 'y')",
    )
    assert query(supabase, "SELECT * FROM user_accounts") == []


# -- Who calls without an account


def test_callers_without_account_are_named(closed: URL) -> None:
    execute(
        closed,
        """
        INSERT INTO user_accounts (user_id) VALUES ('paying'), ('deleted');
        INSERT INTO call_sessions (room_id, user_id, mode, start_time, end_time) VALUES
          ('r', 'free', 'video', '2026-01-01 10:00Z', '2026-01-01 10:01:01Z'),
          ('r', 'free', 'video', '2026-01-02 10:00Z', NULL),
          ('r', 'free', 'video', '2026-01-01 12:00Z', '2026-01-01 11:00Z'),
          ('r', 'free', 'video', '2026-01-01 12:00Z', 'infinity'),
          ('r', 'deleted', 'video', '2026-01-03 10:00Z', '2026-01-03 10:03Z'),
          ('r', 'paying', 'video', '2026-01-01 10:00Z', '2026-01-01 10:01Z'),
          ('r', 'anonymous_7', 'video', '2026-01-01 10:00Z', '2026-01-01 10:01Z'),
          ('r', NULL, 'video', '2026-01-01 10:00Z', '2026-01-01 10:01Z');
        DELETE FROM user_accounts WHERE user_id = 'deleted';
        """,
    )
    sql = (
        "SELECT user_id, calls, open_calls, minutes, (last_call AT TIME ZONE 'UTC')::date::text"
        " FROM oblivion.callers_without_account ORDER BY 1"
    )
    assert query(closed, sql) == [("deleted", 1, 0, 3, "2026-01-03"), ("free", 4, 1, 2, "2026-01-02")]
