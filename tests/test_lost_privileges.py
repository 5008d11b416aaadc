"""Databases whose privileges were lost in a restore, or opened by somebody: money is safe there, and a switch heals.

The attacks are those of `test_attacks`, and more. There a privilege refuses most of them; here the engine has to.
"""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from threading import Thread
from typing import TYPE_CHECKING, Final

import psycopg2
import pytest
from support import (
    API_ROLES,
    ROWS_OF_TWO_USERS,
    examples,
    execute,
    libpq,
    program,
    query,
    run,
    signed_in,
    temporary_home,
    wait_until,
)
from support import request as request_of
from test_access import MATRIX, PRIVILEGES
from test_attacks import (
    AMISS,
    BOOKS,
    BY_KIND,
    ENDED,
    METERED_CALLS,
    MINE,
    MY_ENDED_PAGE,
    MY_PAGE,
    OLD,
    REMEMBERED,
    STATE,
    STATE_OF_METERED,
    THEIRS,
    USER,
    VISITOR,
    Attack,
    blocking,
    sent,
)

import oblivion_schema
from oblivion_schema import metadata
from oblivion_schema.server import embedded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

    from oblivion_schema.tables.access import Mode, PageBilling

__all__ = ["blocking"]

OPENED = """
GRANT USAGE ON SCHEMA public, oblivion TO {roles};
GRANT ALL ON ALL TABLES IN SCHEMA public, oblivion TO {roles};
GRANT ALL ON ALL SEQUENCES IN SCHEMA public, oblivion TO {roles};
GRANT ALL ON ALL FUNCTIONS IN SCHEMA public, oblivion TO {roles};
"""
RESTORED = "restored"
RESTORED_TO_SUPABASE = "restored where clients get all by default"
RESTORED_FIRST = "restored before the API roles"
GRANTED = "all granted to clients"
GRANTED_TO_PUBLIC = "all granted to PUBLIC"
LOSSES = (RESTORED, RESTORED_TO_SUPABASE, RESTORED_FIRST, GRANTED, GRANTED_TO_PUBLIC)


def restore(origin: URL, target: URL, file: Path, *options: str) -> None:
    """Dump a database, as everybody does, and restore it; pg_restore goes on after errors."""
    subprocess.run([program("pg_dump"), "--no-sync", "-Fc", *options, "-f", str(file), libpq(origin)], check=True)
    restored = [str(program("pg_restore")), *options, "-d", libpq(target), str(file)]
    subprocess.run(restored, check=False, capture_output=True)


@pytest.fixture(scope="module")
def server_without_roles() -> Iterator[Callable[[], URL]]:
    """Start another server, which has no API roles yet."""
    with ExitStack() as servers:

        def start() -> URL:
            home = temporary_home()
            servers.callback(shutil.rmtree, home, ignore_errors=True)
            server = embedded.start(home / "server", settings="fsync = off\n", at_exit="delete")
            servers.callback(server.cleanup)
            return embedded.url(server)

        yield start


def fill(url: URL, mode: Mode, pages: PageBilling) -> None:
    """Make the database of two users."""
    oblivion_schema.upgrade(url, access=mode, pages=pages, demo=False)
    execute(url, ROWS_OF_TWO_USERS)
    execute(url, METERED_CALLS)
    execute(url, "SELECT oblivion.allow_sign_up(7)")
    execute(url, "ANALYZE")


def lose(loss: str, origin: URL, request: pytest.FixtureRequest, make: Callable[..., URL], file: Path) -> URL:
    """A copy of `origin` whose privileges are gone, or given to everybody."""
    if loss == RESTORED_FIRST:
        [(version,)] = query(origin, "SELECT current_setting('server_version_num')::integer / 10000")
        if int(str(version)) > embedded.VERSIONS[-1]:
            pytest.skip("a second server of that version cannot be started here, and an older one takes no such dump")
        url: URL = request.getfixturevalue("server_without_roles")()
        restore(origin, url, file)
        execute(
            url,
            f"{' '.join(f'CREATE ROLE {role} NOLOGIN;' for role in API_ROLES)}"
            " CREATE ROLE authenticator LOGIN NOINHERIT PASSWORD 'authenticator';"
            f" GRANT {', '.join(API_ROLES)} TO authenticator",
        )
    elif loss in {RESTORED, RESTORED_TO_SUPABASE}:
        url = make("superuser" if loss == RESTORED else "supabase-old")
        restore(origin, url, file, "-x", "-O")
    else:
        url = make(copy_of=origin)
        execute(url, OPENED.format(roles="PUBLIC" if loss == GRANTED_TO_PUBLIC else "anon, authenticated"))
    return url


@pytest.fixture(scope="module", params=["trusted", "metered"])
def pages(request: pytest.FixtureRequest) -> PageBilling:
    """Who bills the calls of pages."""
    return "metered" if request.param == "metered" else "trusted"


@pytest.fixture(scope="module")
def origin(module_database: Callable[..., URL], templates: Callable[..., URL], pages: PageBilling) -> URL:
    """The database, before anything was lost."""
    return module_database(copy_of=templates("superuser", fill, "authenticated", pages))


@pytest.fixture(scope="module", params=LOSSES)
def loss(request: pytest.FixtureRequest) -> str:
    """How the privileges were lost."""
    return str(request.param)


@pytest.fixture(scope="module")
def exposed(
    request: pytest.FixtureRequest,
    loss: str,
    origin: URL,
    module_database: Callable[..., URL],
    tmp_path_factory: pytest.TempPathFactory,
) -> URL:
    """The database once its privileges are lost."""
    url = lose(loss, origin, request, module_database, tmp_path_factory.mktemp("dumps") / "dump")
    execute(url, "ANALYZE")
    execute(url, REMEMBERED)
    return url


@pytest.fixture
def lost(
    request: pytest.FixtureRequest, loss: str, origin: URL, new_sort: Callable[..., URL], tmp_path: Path
) -> Callable[[], URL]:
    """Make such a database for one test."""
    return lambda: lose(loss, origin, request, new_sort, tmp_path / "dump")


# What only the privilege refuses. The API sends nothing of the sort: it takes somebody who can send any SQL.
UNDEFENDED = ("CREATE TRIGGER mine", "token_ledger_id_seq", "oblivion.alembic_version")
# What a user who may write all columns does to own rows, and to nobody's tokens. It is compared with `AMISS`.
OWN_ROWS = (
    "UPDATE user_accounts SET user_id = 'mine' WHERE user_id = 'mine'",
    "UPDATE user_accounts SET updated_at = '2001-01-01', email = 'x'",
    "INSERT INTO call_sessions (room_id, user_id, mode, created_at) VALUES ('r', 'mine', 'video', '2001-01-01')",
    "INSERT INTO call_sessions (id, room_id, user_id, mode) VALUES (gen_random_uuid(), 'r', 'mine', 'video')",
    "UPDATE active_calls SET room_id = 'mine'",
    *(
        f"UPDATE call_sessions SET {change} WHERE id = '{call}'"
        for call in (MY_PAGE, MY_ENDED_PAGE, MINE)
        for change in ("room_id = 'other'", "end_time = now(), user_id = 'anonymous_1'")
    ),
)


# A call that is new since then began since then.
AMISS_SINCE = AMISS.replace("c.created_at, now())", "c.created_at, (SELECT max(created_at) FROM before.ledger))")


def harm(url: URL, attacks: Iterable[Attack], what: str) -> list[tuple[object, ...]]:
    """Those of the attacks that showed a word of the other user, or after which `what` is another."""
    owner = psycopg2.connect(libpq(url))
    owner.autocommit = True
    watch = owner.cursor()
    watch.execute(f"PREPARE state AS {what}")

    def now() -> object:
        watch.execute("EXECUTE state")
        return watch.fetchone()

    def amiss() -> list[tuple[object, ...]]:
        watch.execute(AMISS_SINCE)
        return watch.fetchall()

    before = now()
    connection = psycopg2.connect(libpq(url.set(username="authenticator", password="authenticator")))
    found: list[tuple[object, ...]] = []
    for attack in attacks:
        refusal, seen = sent(connection, attack)
        after = now()
        changed = amiss() if attack.sql in OWN_ROWS else after != before
        if "theirs" in seen or changed:
            found.append((attack, refusal, seen, changed))
        before = after
    connection.close()
    owner.close()
    return found


# -- What takes a privilege to try at all


def everybody(*statements: str) -> Iterator[Attack]:
    """Each statement, of the visitor, and of the user."""
    yield from (Attack(sql, "", *who) for sql in statements for who in (VISITOR, USER))


METER = f"(SELECT m FROM oblivion.call_meters AS m WHERE m.session_id = '{THEIRS}')"
FORGED_METER = (
    "jsonb_populate_record(NULL::oblivion.call_meters, '"
    '{"session_id": "%s", "user_id": "%s", "mode": "video", "cost": %s, "due_before": 0, "first_minute": 0,'
    ' "first_second": 0, "segment": 1, "tokens_per_minute": %s, "started_at": "2026-01-01", "seen_at": "2026-01-01",'
    ' "shortfall": 0, "by_page": true, "used_turn": false, "settled": false, "refunded": 0}\')'
)


def forged(call: str, user: str, cost: int, rate: int) -> str:
    """A meter that is not in the table."""
    return FORGED_METER % (call, user, cost, rate)


def other_roles() -> Iterator[Attack]:
    """Functions that take the role of their caller as an argument, called by name with another's."""
    for caller in ("service_role", "postgres", "nobody", "pg_database_owner", "authenticated", ""):
        yield from everybody(
            f"SELECT * FROM oblivion.call_quote('theirs', 'video', false, '{caller}') WHERE balance IS NOT NULL",
            f"SELECT *, 'theirs' FROM oblivion.explain_call('{THEIRS}', '{caller}')",
            f"SELECT *, 'theirs' FROM oblivion.explain_call('{ENDED}', '{caller}')",
            f"SELECT * FROM oblivion.start_call('theirs', 'r', 'video', false, 'k {caller}', '{caller}')",
            f"SELECT * FROM oblivion.tick_call('{THEIRS}', '{caller}')",
            f"SELECT * FROM oblivion.end_call('{THEIRS}', '{caller}')",
            *(
                f"SELECT * FROM oblivion.advance_call('{call}', '{action}', true, '{caller}')"
                for call in (THEIRS, OLD)
                for action in ("tick", "turn", "end", "reap", "burn", "settle")
            ),
            *(
                f"SELECT * FROM oblivion.advance_call('{call}', '{action}', true, '{caller}')"
                for call in (MINE, MY_PAGE)
                for action in ("reap", "burn", "settle")
            ),
        )


def by_name() -> Iterator[Attack]:
    """What the engine's functions do with arguments that the engine would not give."""
    meters = [
        METER,
        *(forged(call, user, 0, rate) for call in (MINE, THEIRS) for user in ("mine", "theirs") for rate in (9, -9)),
    ]
    yield from everybody(
        "SELECT * FROM oblivion.credit_account('mine', 1000, 'k', 'top_up', NULL, NULL)",
        f"SELECT * FROM oblivion.credit_account('mine', 1000, 'k', 'refund', '{MINE}', 1000)",
        "SELECT * FROM oblivion.credit_account('theirs', -10, 'k', 'top_up', NULL, NULL)",
        *(f"SELECT oblivion.unmeter_call('{call}')" for call in (MINE, THEIRS, MY_PAGE, MY_ENDED_PAGE)),
        f"SELECT oblivion.meter_call('{OLD}', 'theirs', 'video', '2026-01-01')",
        f"SELECT oblivion.note_incident('{THEIRS}', 'theirs', 'tick', 'x', 'y')",
        *(
            statement
            for meter in meters
            for statement in (
                f"SELECT status FROM oblivion.bill_call({meter}, now(), true, 'end')",
                f"SELECT oblivion.note_outcome({meter}, 'ok', now(), true, false) IS NULL",
                f"SELECT oblivion.turn_call({meter}, true, 1, 1, true)",
            )
        ),
        "SELECT oblivion.trim_ledger(now())",
        "SELECT oblivion.fold_charges(now())",
        "SELECT oblivion.rebuild_rollups()",
        "SELECT oblivion.fold_usage(1000), oblivion.fold_calls(1000)",
        "SELECT * FROM oblivion.sweep_calls('reap', 1000, '0', '0')",
        "SELECT * FROM oblivion.sweep_calls('settle', 1000)",
        "SELECT * FROM oblivion.top_up('mine', 1000, 'k')",
        "SELECT oblivion.allow_sign_up(1000)",
        "SELECT * FROM oblivion.make_account('third', 'mail', false)",
        "INSERT INTO oblivion.sign_up (tokens) VALUES (1000)",
        "UPDATE oblivion.sign_up SET tokens = 1000",
        "DELETE FROM oblivion.sign_up",
        f"SELECT * FROM oblivion.refund_call('{MINE}', 1, 'k')",
        *(f"SELECT * FROM oblivion.{view}" for view in ("live_calls", "page_calls", "balance_audit")),
    )


def private_rows() -> Iterator[Attack]:
    """Rows of the engine's own tables, written and read."""
    for table in ("call_meters", "call_segments", "billing_incidents"):
        yield from everybody(
            f"SELECT *, 'theirs' FROM oblivion.{table}",
            f"DELETE FROM oblivion.{table}",
            f"DELETE FROM oblivion.{table} WHERE session_id = '{MINE}'",
            f"UPDATE oblivion.{table} SET session_id = session_id",
            f"MERGE INTO oblivion.{table} AS t USING oblivion.{table} AS u ON true WHEN MATCHED THEN DELETE",
            f"COPY oblivion.{table} FROM STDIN",
            f"SELECT *, 'theirs' FROM pg_stats WHERE tablename = '{table}'",
        )
    yield from everybody(
        *(
            f"UPDATE oblivion.call_meters SET {change} WHERE session_id = '{call}'"
            for call in (MINE, THEIRS, MY_PAGE)
            for change in (
                "cost = 0",
                "started_at = now()",
                "user_id = 'theirs'",
                "settled = true",
                "tokens_per_minute = 0, direct_rate = 0, turn_rate = 0",
                "by_page = NOT by_page",
            )
        ),
        "INSERT INTO oblivion.call_meters SELECT m.* FROM oblivion.call_meters AS m ON CONFLICT DO NOTHING",
        f"INSERT INTO oblivion.call_meters SELECT ({forged(OLD, 'theirs', 0, 9)}).*",
        "INSERT INTO oblivion.billing_incidents (session_id, user_id, action, error_code, message)"
        f" VALUES ('{THEIRS}', 'theirs', 'tick', 'x', 'y')",
        "UPDATE oblivion.billing_incidents SET resolved_at = now()",
        "INSERT INTO oblivion.usage_deltas (user_id, sessions, tokens, seconds, has_lost_rows)"
        " VALUES ('theirs', -1, -1, 0, true)",
        "INSERT INTO oblivion.adoption_log (kind, name, why) VALUES ('row', 'theirs', 'x')",
        "UPDATE oblivion.daily_usage SET tokens = 0",
        "DELETE FROM oblivion.user_usage",
        *(
            f"TRUNCATE {table.schema or 'public'}.{table.name} CASCADE"
            for table in metadata.tables.values()
            if not table.is_view
        ),
    )


def own_triggers() -> Iterator[Attack]:
    """The owner's trigger functions on a table of the attacker's, whose rows say what they like."""
    columns = {
        "user_accounts": "user_id text, tokens_remaining integer, subscription_tier text, created_at timestamptz",
        "call_sessions": "id uuid, room_id text, start_time timestamptz, end_time timestamptz, mode text,"
        " used_turn boolean, credit_cost numeric, user_id text, created_at timestamptz",
        "token_usage": "id uuid, user_id text, session_id text, tokens_used integer, timestamp timestamptz,"
        " mode text, used_turn boolean, duration_seconds integer",
    }
    rows = {
        "user_accounts": ("('theirs', 5000, 'pro', now())", "tokens_remaining = 1"),
        "call_sessions": (
            ", ".join(
                f"('{call}', 'r', now(), NULL, 'video', true, 0, '{user}', now())"
                for call, user in ((THEIRS, "theirs"), (MINE, "mine"))
            ),
            "end_time = now(), start_time = '2030-01-01', user_id = 'mine'",
        ),
        "token_usage": (
            f"(gen_random_uuid(), 'theirs', '{THEIRS}', 5000, now(), 'video', false, 1)",
            "tokens_used = 1",
        ),
    }
    for name in TRIGGERS:
        for table, its in columns.items():
            inserted, updated = rows[table]
            make = f"CREATE TEMP TABLE {table} ({its});"
            for level, moments, also in (
                ("ROW", ("BEFORE INSERT OR UPDATE OR DELETE", "AFTER INSERT OR UPDATE OR DELETE"), ""),
                ("STATEMENT", ("BEFORE TRUNCATE", "AFTER TRUNCATE"), ""),
                ("STATEMENT", ("AFTER INSERT",), "REFERENCING NEW TABLE AS added"),
                ("STATEMENT", ("AFTER DELETE",), "REFERENCING OLD TABLE AS removed"),
            ):
                for moment in moments:
                    yield Attack(
                        f"{make} CREATE TRIGGER t {moment} ON pg_temp.{table} {also} FOR EACH {level}"
                        f" EXECUTE FUNCTION {name}(); INSERT INTO pg_temp.{table} VALUES {inserted};"
                        f" UPDATE pg_temp.{table} SET {updated}; DELETE FROM pg_temp.{table};"
                        f" TRUNCATE pg_temp.{table}",
                        "",
                        *USER,
                    )


TRIGGERS = (
    "oblivion.write_ledger",
    "oblivion.close_ledger",
    "oblivion.guard_metered_call",
    "oblivion.settle_deleted_call",
    "oblivion.correct_meter",
    "oblivion.note_usage",
    "oblivion.note_calls",
    "oblivion.clear_rollups",
    "oblivion.meter_page_call",
    "oblivion.bill_page_call",
    "oblivion.guard_account",
    "oblivion.guard_usage",
    "oblivion.bar_truncate",
    "oblivion.update_account",
    "oblivion.open_account_of_user",
)


def new_users() -> Iterator[Attack]:
    """An account of one's own, with more than is given to everybody."""
    third = ("authenticated", signed_in("third"))
    for columns, values in (
        ("user_id, tokens_remaining", "'third', 5000"),
        ("user_id, tokens_remaining, subscription_tier", "'third', 100, 'enterprise'"),
        ("user_id, subscription_tier", "'third', 'pro'"),
    ):
        yield Attack(
            f"WITH a AS (INSERT INTO user_accounts ({columns}) VALUES ({values}) RETURNING *)"
            " SELECT CASE WHEN tokens_remaining > 100 OR subscription_tier <> 'free' THEN 'theirs' END FROM a;"
            " ROLLBACK",
            "",
            *third,
        )
    yield Attack("UPDATE user_accounts SET subscription_tier = 'pro' WHERE user_id = 'mine'", "", *USER)
    yield Attack("UPDATE user_accounts SET created_at = '2000-01-01'", "", *USER)


MORE = {
    "other roles": other_roles,
    "by name": by_name,
    "private rows": private_rows,
    "own triggers": own_triggers,
    "new users": new_users,
}


@pytest.mark.parametrize("kind", [*BY_KIND, *MORE])
@pytest.mark.few(loss=(RESTORED_TO_SUPABASE, GRANTED))
@pytest.mark.server
def test_attack_does_no_harm(
    exposed: URL, request: pytest.FixtureRequest, kind: str, pages: PageBilling, loss: str
) -> None:
    its = list((BY_KIND | MORE)[kind]())[:: examples(1, quick=5)]
    if loss not in {RESTORED, RESTORED_FIRST}:
        its = [attack for attack in its if not any(words in attack.sql for words in UNDEFENDED)]
    found = harm(exposed, its, STATE_OF_METERED if pages == "metered" else STATE)
    assert found == []
    request.node.user_properties.append(("attacks", len(its)))


@pytest.mark.parametrize("access", ["open", "authenticated"])
@pytest.mark.few(loss=(RESTORED, GRANTED), access="authenticated")
@pytest.mark.server
def test_switch_gives_exactly_what_was_declared(lost: Callable[[], URL], access: Mode, pages: PageBilling) -> None:
    url = lost()
    verified = run("verify", url=url)
    assert (verified.status, "oblivion-schema access authenticated" in verified.out) == (1, True)
    assert run("access", access, url=url).status == 0
    mode = -1 if access == "authenticated" and pages == "metered" else ("open", "authenticated").index(access)
    found: dict[object, list[object]] = {}
    for name, _, privileges in query(url, PRIVILEGES):
        found.setdefault(str(name), []).append(privileges)
    assert found == {name: list(by_mode[mode]) for name, by_mode in MATRIX.items()}
    assert run("check", url=url).status == 0, "and policies, and all else, are as declared"
    assert not [line for line in run("verify", url=url).out.splitlines() if line.startswith("FAIL  access")]


def test_switch_refuses_what_another_role_granted(new_sort: Callable[..., URL], templates: Callable[..., URL]) -> None:
    """The owner cannot take it back."""
    url = new_sort(copy_of=templates("superuser", fill, "authenticated", "trusted"))
    for on in (
        "SCHEMA oblivion",
        "SEQUENCE public.token_ledger_id_seq",
        "FUNCTION public.top_up(text, integer, text)",
        "TABLE oblivion.alembic_version",
    ):
        execute(url, f"GRANT USAGE ON SCHEMA oblivion TO pg_monitor; GRANT ALL ON {on} TO pg_monitor WITH GRANT OPTION")
        execute(url, f"SET LOCAL ROLE pg_monitor; GRANT ALL ON {on} TO anon")
        failed = run("access", "authenticated", url=url).error
        assert "The access mode would not hold: pg_monitor granted" in failed, on
        execute(url, f"REVOKE ALL ON {on} FROM pg_monitor CASCADE")
    assert run("access", "authenticated", url=url).status == 0


# Everybody may advance calls where access is open.
ANYBODYS = ("oblivion.start_call", "oblivion.advance_call", "oblivion.tick_call", "oblivion.end_call")


@pytest.mark.parametrize("kind", ["books", "private relations", "by name", "private rows", "own triggers"])
@pytest.mark.few(loss=(RESTORED_TO_SUPABASE, GRANTED))
@pytest.mark.server
def test_books_are_safe_where_access_is_open(open_to_all: URL, request: pytest.FixtureRequest, kind: str) -> None:
    its = [
        attack
        for attack in (BY_KIND | MORE)[kind]()
        if not any(words in attack.sql for words in (*UNDEFENDED, *ANYBODYS))
    ][:: examples(1, quick=5)]
    # All rows are everybody's to read.
    found = [attack for attack in harm(open_to_all, its, BOOKS) if attack[-1]]
    assert found == []
    request.node.user_properties.append(("attacks", len(its)))


@pytest.fixture(scope="module")
def open_to_all(
    request: pytest.FixtureRequest,
    loss: str,
    templates: Callable[..., URL],
    module_database: Callable[..., URL],
    tmp_path_factory: pytest.TempPathFactory,
) -> URL:
    """The database in the open mode, pages metered, once its privileges are lost."""
    origin = templates("superuser", fill, "open", "metered")
    url = lose(loss, origin, request, module_database, tmp_path_factory.mktemp("dumps") / "dump")
    execute(url, REMEMBERED)
    return url


def test_privilege_alone_refuses_what_the_docs_name(
    new_sort: Callable[..., URL], templates: Callable[..., URL]
) -> None:
    """If one of these is refused one day, docs/access.md need not name it any more."""
    url = new_sort(copy_of=templates("superuser", fill, "authenticated", "trusted"))
    execute(url, OPENED.format(roles="anon, authenticated"))
    for sql in (
        "CREATE TRIGGER mine BEFORE UPDATE ON token_rates FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()",
        "SELECT setval('token_ledger_id_seq', 1)",
        "DELETE FROM oblivion.alembic_version",
        "LOCK TABLE user_accounts IN ACCESS EXCLUSIVE MODE",
    ):
        with request_of(url, "anon") as connection:
            assert connection.exec_driver_sql(sql).rowcount != 0


def test_user_changes_the_email_while_a_call_is_charged(
    new_sort: Callable[..., URL], templates: Callable[..., URL]
) -> None:
    """The policy compares balances: it has to see the charge for which the UPDATE waited."""
    url = new_sort(copy_of=templates("superuser", fill, "authenticated", "trusted"))
    execute(url, f"UPDATE call_sessions SET start_time = start_time - interval '1 hour' WHERE id = '{MINE}'")
    user, engine = (psycopg2.connect(libpq(url)) for _ in range(2))
    with user.cursor() as page, engine.cursor() as service:
        page.execute("SELECT pg_backend_pid(), set_config('role', 'authenticated', false)")
        [(pid, _)] = page.fetchall()
        page.execute("SELECT set_config('request.jwt.claims', %s, false)", (signed_in("mine"),))
        service.execute(f"SELECT charged FROM tick_call('{MINE}')")
        [(charged,)] = service.fetchall()
        assert charged > 0
        changed: list[int] = []

        def change() -> None:
            page.execute("UPDATE user_accounts SET email = 'new'")
            changed.append(page.rowcount)

        waiting = Thread(target=change)
        waiting.start()
        wait_until(lambda: query(url, f"SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = {pid}")[0][0])
        engine.commit()
        waiting.join()
    user.commit()
    assert changed == [1]
    assert query(url, "SELECT email FROM user_accounts WHERE user_id = 'mine'") == [("new",)]
    for connection in (user, engine):
        connection.close()


# The calls of a template go on, and cost what an account has, if the tests take long.
BILLED: Final = {"ok", "short"}


def test_functions_of_the_owner_are_believed_until_clients_reach_the_private_schema(
    new_sort: Callable[..., URL], templates: Callable[..., URL]
) -> None:
    """An owner's function may act for a page. Where pages can call the private functions, forgers say they are that."""
    url = new_sort(copy_of=templates("superuser", fill, "authenticated", "trusted"))
    execute(
        url,
        "CREATE FUNCTION kick(call uuid) RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = ''"
        " RETURN (public.tick_call(call)).status",
    )
    with request_of(url, "authenticated", signed_in("mine")) as connection:
        assert connection.exec_driver_sql(f"SELECT kick('{THEIRS}')").scalar() in BILLED
    execute(url, "GRANT USAGE ON SCHEMA oblivion TO authenticated")
    with request_of(url, "authenticated", signed_in("mine")) as connection:
        assert connection.exec_driver_sql(f"SELECT kick('{THEIRS}')").scalar() == "unknown"
        assert connection.exec_driver_sql(f"SELECT status FROM tick_call('{MINE}')").scalar() in BILLED
    with request_of(url, "service_role") as connection:
        assert connection.exec_driver_sql(f"SELECT status FROM tick_call('{THEIRS}')").scalar() in BILLED
