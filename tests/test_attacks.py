"""A hostile visitor and a hostile user: what they try, and how it fails, whoever bills the calls of pages.

An attack is a request as PostgREST makes it, but for its SQL, which may be anything. It is committed. It fails with the
SQLSTATE that is named here, or is let through to no avail; no word of the other user comes back in rows, notices or
errors, and then the database is what it was.

Where access is open and pages are metered, everybody may do what pages do, and much else. Then no balance goes up, and
none changes but by what the engine bills: `AMISS`.
"""

from __future__ import annotations

import io
import itertools
import re
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import psycopg2
import pytest
from sqlalchemy.exc import DBAPIError
from support import ROWS_OF_TWO_USERS, examples, execute, libpq, program, psql, query, request, run, signed_in

import oblivion_schema
from oblivion_schema.errors import sqlstate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import URL

    from oblivion_schema.tables.access import PageBilling

DENIED = "42501"
NO_COPY_TO_GUARDED_ROWS = "0A000"
NO_SUCH_COLUMN = "42703"
NO_AVAIL = ""

TABLES = ("user_accounts", "call_sessions", "token_usage", "user_presence", "token_ledger")
PRIVATE = (
    *("call_meters", "call_segments", "billing_incidents", "balance_audit", "adoption_log"),
    *("sign_up", "callers_without_account"),
)
VIEWS = ("active_calls", "daily_billing_summary", "daily_token_usage", "user_token_summary")
OWNERS_COLUMN = {"user_presence": "host_id"}

# Calls of which the attacker knows the id: metered ones, the last of which has ended, and one of an old client.
MINE, THEIRS, ENDED, OLD = (f"00000000-0000-4000-8000-{number:012}" for number in range(1, 5))
# Metered calls that pages inserted: two go on, two have ended.
MY_PAGE, MY_ENDED_PAGE, THEIR_PAGE, THEIR_ENDED_PAGE = (f"00000000-0000-4000-8000-{n:012}" for n in range(5, 9))
NEW = "00000000-0000-4000-8000-000000000009"


def start(call: str, user: str) -> str:
    """What starts a metered call of that id."""
    return f"""
    ALTER TABLE call_sessions ALTER id SET DEFAULT '{call}';
    SELECT start_call('{user}', 'room of {user}', 'video', false, 'key {call}');
    """


def page_call(call: str, user: str) -> str:
    """What makes a metered call of a page of that id, which began a minute ago."""
    return f"""
    INSERT INTO call_sessions (id, room_id, user_id, mode, start_time)
    VALUES ('{call}', 'room of {user}', '{user}', 'video', now() - interval '61 seconds');
    SELECT oblivion.meter_call(id, user_id, mode, start_time) FROM public.call_sessions WHERE id = '{call}';
    """


METERED_CALLS = f"""
    {start(MINE, "mine")}
    {start(THEIRS, "theirs")}
    {start(ENDED, "theirs")}
    ALTER TABLE call_sessions ALTER id SET DEFAULT gen_random_uuid();
    UPDATE call_sessions SET start_time = start_time - interval '61 seconds'
    WHERE id IN ('{MINE}', '{THEIRS}', '{ENDED}');
    SELECT set_call_turn(id, true) FROM call_sessions WHERE id IN ('{MINE}', '{THEIRS}');
    UPDATE call_sessions SET start_time = start_time - interval '60 seconds' WHERE id IN ('{MINE}', '{THEIRS}');
    SELECT tick_call(id) FROM call_sessions WHERE id IN ('{MINE}', '{THEIRS}');
    SELECT end_call('{ENDED}');
    INSERT INTO oblivion.billing_incidents (session_id, user_id, action, error_code, message)
    VALUES ('{THEIRS}', 'theirs', 'tick', '55P03', 'of theirs');
    INSERT INTO call_sessions (id, room_id, user_id, mode) VALUES ('{OLD}', 'room of theirs', 'theirs', 'video');
    {page_call(MY_PAGE, "mine")}
    {page_call(MY_ENDED_PAGE, "mine")}
    {page_call(THEIR_PAGE, "theirs")}
    {page_call(THEIR_ENDED_PAGE, "theirs")}
    SELECT end_call(id) FROM call_sessions WHERE id IN ('{MY_ENDED_PAGE}', '{THEIR_ENDED_PAGE}');
"""


class Attack(NamedTuple):
    """What is sent in which role and with which claims, and the SQLSTATE of its refusal, or `NO_AVAIL`.

    `metered`: what becomes of it in the authenticated mode if pages are metered, if that is another SQLSTATE.
    """

    sql: str
    refusal: str
    role: str
    claims: str
    metered: str | None = None

    def expected(self, pages: str) -> str:
        """The SQLSTATE, or `NO_AVAIL`, where pages are billed in that way."""
        return self.refusal if pages == "trusted" or self.metered is None else self.metered


VISITOR = ("anon", '{"role": "anon"}')
USER = ("authenticated", signed_in("mine"))


def both(refusal: str, *statements: str, metered: str | None = None) -> Iterator[Attack]:
    """Each statement, sent by the visitor and by the user, to whom alone it makes a difference if pages are metered."""
    for sql in statements:
        yield from visitor(refusal, sql)
        yield from user(refusal, sql, metered=metered)


def visitor(refusal: str, *statements: str) -> Iterator[Attack]:
    yield from (Attack(sql, refusal, *VISITOR) for sql in statements)


def user(refusal: str, *statements: str, metered: str | None = None) -> Iterator[Attack]:
    yield from (Attack(sql, refusal, *USER, metered) for sql in statements)


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


def on_private_relations() -> Iterator[Attack]:
    """What can be done with what the engine keeps for itself."""
    for relation in PRIVATE:
        yield from both(
            DENIED,
            f"SELECT * FROM oblivion.{relation}",
            f"DELETE FROM oblivion.{relation}",
            f"UPDATE oblivion.{relation} SET user_id = 'mine'",
            f"INSERT INTO oblivion.{relation} DEFAULT VALUES",
            f"TRUNCATE oblivion.{relation}",
            f"COPY oblivion.{relation} TO STDOUT",
            f"SET LOCAL search_path = oblivion, public; SELECT * FROM oblivion.{relation}",
            f"SELECT NULL::oblivion.{relation}",
            f"CREATE TEMP TABLE mine (LIKE oblivion.{relation})",
        )


# The books: what in both modes nobody writes but the engine.
ON_THE_BOOKS = [
    *both(
        DENIED,
        "SELECT * FROM top_up('mine', 1000, 'free')",
        "SELECT * FROM top_up('theirs', -1000, 'gone')",
        "SELECT * FROM top_up(user_id => NULL, tokens => NULL, key => NULL)",
        f"SELECT * FROM refund_call('{MINE}', 1, 'back')",
        f"SELECT * FROM refund_call('{THEIRS}', 1, 'back')",
        "SELECT * FROM reap_stale_calls('0 seconds')",
        "SELECT * FROM settle_calls()",
        "SELECT * FROM settle_calls(0)",
        "INSERT INTO token_ledger (user_id, kind, tokens, balance) VALUES ('mine', 'top_up', 1000, 1000)",
        "INSERT INTO token_ledger (user_id, id, kind, tokens, balance) OVERRIDING SYSTEM VALUE"
        " VALUES ('mine', 1, 'top_up', 1000, 1000) ON CONFLICT (user_id, id) DO UPDATE SET tokens = excluded.tokens",
        "UPDATE token_ledger SET tokens = 0 WHERE user_id = 'mine'",
        "UPDATE token_ledger SET key = 'known' WHERE user_id = 'theirs'",
        "DELETE FROM token_ledger WHERE user_id = 'mine'",
        "MERGE INTO token_ledger AS l USING (VALUES ('mine')) AS v (id) ON l.user_id = v.id WHEN MATCHED THEN DELETE",
        "SELECT * FROM token_ledger FOR UPDATE",
        "LOCK TABLE token_ledger IN SHARE MODE",
        "SELECT nextval('token_ledger_id_seq')",
        "SELECT setval('token_ledger_id_seq', 1)",
        "SELECT currval('token_ledger_id_seq')",
        "ALTER TABLE token_ledger ALTER id SET GENERATED BY DEFAULT",
        "ALTER TABLE user_accounts DISABLE TRIGGER write_ledger",
        "ALTER TABLE call_sessions DISABLE TRIGGER guard_metered_call",
        "DROP TRIGGER correct_meter ON call_sessions",
        "DROP TRIGGER meter_page_call ON call_sessions",
        "ALTER TABLE call_sessions DISABLE TRIGGER bill_page_call",
        "ALTER TABLE user_accounts DISABLE TRIGGER update_user_accounts_updated_at",
        "ALTER TABLE user_accounts DISABLE TRIGGER guard_account",
        "DROP TRIGGER guard_usage ON token_usage",
        "SELECT * FROM burn_calls()",
        "SELECT * FROM burn_calls(0)",
        "CREATE OR REPLACE FUNCTION public.page_billing() RETURNS text LANGUAGE sql IMMUTABLE RETURN 'trusted'",
        "CREATE OR REPLACE FUNCTION oblivion.page_billing() RETURNS text LANGUAGE sql IMMUTABLE RETURN 'trusted'",
        "ALTER FUNCTION public.page_billing() RENAME TO page_billing_no_more",
        "DROP FUNCTION public.page_billing() CASCADE",
        "SELECT oblivion.meter_call(NULL, NULL, NULL, now() - interval '1 year')",
        "SELECT oblivion.unmeter_call(NULL)",
        "SELECT oblivion.is_page()",
        "SELECT oblivion.refuse_pages()",
        "SELECT oblivion.call_id('')",
        "SELECT oblivion.is_fresh(NULL)",
        "SELECT oblivion.last_moment(NULL)",
        "SELECT oblivion.final_meter(NULL, false), oblivion.page_lag(NULL, now())",
        "SELECT * FROM oblivion.page_calls",
        "CREATE TRIGGER mine AFTER UPDATE ON user_accounts FOR EACH ROW EXECUTE FUNCTION oblivion.bill_page_call()",
        "SET LOCAL session_replication_role = replica",
        "TRUNCATE user_accounts, call_sessions, token_usage, token_ledger CASCADE",
        "CREATE OR REPLACE FUNCTION public.end_call(session_id uuid) RETURNS void LANGUAGE sql RETURN 1",
        "ALTER FUNCTION public.tick_call(uuid) SECURITY DEFINER",
        "ALTER FUNCTION public.tick_call(uuid) SET search_path = pg_temp",
        "DROP FUNCTION public.explain_call(uuid)",
        "GRANT USAGE ON SCHEMA oblivion TO anon",
        f"SELECT * FROM oblivion.advance_call('{THEIRS}', 'end', NULL, 'service_role')",
        f"SELECT * FROM oblivion.tick_call('{THEIRS}', 'service_role')",
        f"SELECT * FROM oblivion.end_call('{THEIRS}', 'service_role')",
        "SELECT * FROM oblivion.sweep_calls('reap', '0', 1000)",
        "SELECT * FROM oblivion.live_calls",
        "SELECT * FROM oblivion.start_call('theirs', 'r', 'video', false, NULL, 'service_role')",
        f"SELECT * FROM oblivion.explain_call('{THEIRS}', 'service_role')",
        "SELECT * FROM oblivion.call_quote('theirs', 'video', false, 'service_role')",
        "SELECT * FROM oblivion.credit_account('mine', 1000, 'k', 'top_up', NULL, NULL)",
        "SELECT oblivion.trim_ledger(now())",
        "SELECT oblivion.fold_charges(now())",
        "SELECT oblivion.rebuild_ledger()",
        "SELECT oblivion.restart_identities()",
        "SELECT oblivion.allow_sign_up(1000)",
        "SELECT * FROM oblivion.make_account('third', 'mail', false)",
        "CREATE FUNCTION pg_temp.mine() RETURNS text LANGUAGE sql BEGIN ATOMIC"
        " SELECT status FROM oblivion.top_up('mine', 1, 'k'); END",
        "CREATE TRIGGER mine AFTER UPDATE ON user_accounts FOR EACH ROW EXECUTE FUNCTION oblivion.write_ledger()",
    ),
    # Keys and words that the functions do not take.
    *(
        attack
        for payer, who in (("NULL", visitor), ("'mine'", user))
        for refusal, arguments in (
            ("22023", f"{payer}, 'r', 'video', false, ''"),
            ("22023", f"{payer}, 'r', 'video', false, repeat('k', 201)"),
            ("22023", f"{payer}, 'r', 'video', false, repeat('k', 10000000)"),
            ("22023", f"{payer}, NULL, 'video'"),
            ("22023", f"{payer}, 'r', 'audio'"),
            ("22023", f"{payer}, 'r', NULL"),
            ("42883", f"{payer}, 'r', 'video', 0"),
        )
        for attack in who(refusal, f"SELECT * FROM start_call({arguments})")
    ),
    *user("23505", f"SELECT * FROM start_call('mine', 'another', 'video', false, 'key {MINE}')"),
    *user("23505", f"SELECT * FROM start_call('mine', 'room of mine', 'voice', false, 'key {MINE}')"),
    *both(
        "22P02",
        "SELECT * FROM tick_call('all')",
        "SELECT * FROM explain_call(repeat('0', 1000000)::uuid)",
    ),
    *both(
        NO_AVAIL,
        "SELECT * FROM tick_call(NULL)",
        "SELECT * FROM end_call('00000000-0000-0000-0000-000000000000')",
        "SELECT * FROM explain_call(NULL)",
    ),
]


def refused(function: str, *, echoes_call: bool = True) -> str:
    """A call of a function that has to say `unknown` and nothing else; all else is cast to what it is not."""
    told = "status <> 'unknown' OR balance IS NOT NULL OR minutes_left IS NOT NULL"
    if echoes_call:
        told += " OR charged <> 0 OR shortfall <> 0 OR minutes_billed IS NOT NULL OR credit_cost IS NOT NULL"
    return f"SELECT status::integer FROM {function} WHERE {told}"


# Others' calls, in the authenticated mode: their ids are known, and of no use.
ON_CALLS = [
    *(
        attack
        for call in (THEIRS, ENDED, OLD)
        for attack in both(
            NO_AVAIL,
            refused(f"tick_call('{call}')"),
            refused(f"end_call('{call}')"),
            refused(f"set_call_turn('{call}', false)"),
            refused(f"set_call_turn('{call}', true)"),
            f"SELECT mode::integer FROM explain_call('{call}')",
            f"SET LOCAL oblivion.access = 'open'; {refused(f'end_call($${call}$$)')}",
            f"SET LOCAL oblivion.reason = 'refund {call} k'; {refused(f'end_call($${call}$$)')}",
            f"SET LOCAL request.jwt.claim.sub = 'theirs'; {refused(f'tick_call($${call}$$)')}",
        )
    ),
    *visitor(NO_AVAIL, refused(f"tick_call('{MINE}')"), refused(f"end_call('{MINE}')")),
    *visitor(NO_AVAIL, f"SELECT mode::integer FROM explain_call('{MINE}')"),
    *both(
        NO_AVAIL,
        refused("call_quote('theirs', 'video')", echoes_call=False),
        refused("call_quote('theirs', 'voice', true)", echoes_call=False),
    ),
    *visitor(NO_AVAIL, refused("call_quote('mine', 'video')", echoes_call=False)),
    *both(
        DENIED,
        "SELECT * FROM start_call('theirs', 'r', 'video')",
        "SELECT * FROM start_call(user_id => 'theirs', room_id => 'r', mode => 'voice-only', used_turn => true)",
        f"SELECT * FROM start_call('theirs', 'room of theirs', 'video', false, 'key {THEIRS}')",
        "SELECT * FROM start_call('third', 'r', 'video')",
        "SELECT * FROM start_call('', 'r', 'video')",
        "SELECT * FROM start_call('anonymous', 'r', 'video')",
        "SELECT * FROM start_call('anonymousX1', 'r', 'video')",
        f"DELETE FROM call_sessions WHERE id = '{MINE}'",
        f"UPDATE token_usage SET tokens_used = 0 WHERE session_id = '{MINE}'",
        f"INSERT INTO call_sessions (id, room_id, user_id, mode) VALUES ('{MINE}', 'r', 'mine', 'video')",
    ),
    *visitor(DENIED, "SELECT * FROM start_call('mine', 'r', 'video')"),
]

# In the open mode everybody may start, tick and end calls; what they cost is still nobody's to say.
AS_ANYBODY = (VISITOR, USER, ("service_role", '{"role": "service_role"}'))
ON_METERED_ROWS = [
    Attack(sql, NO_AVAIL, *who)
    for who in AS_ANYBODY
    for call in (THEIRS, ENDED)
    for sql in (
        *(
            f"UPDATE call_sessions SET {change} WHERE id = '{call}'"
            for change in (
                "credit_cost = 0",
                "credit_cost = -1000",
                "credit_cost = 999999.9999",
                "credit_cost = NULL",
                "start_time = clock_timestamp()",
                "start_time = '2000-01-01'",
                "start_time = 'infinity'",
                "mode = 'voice-only'",
                "mode = 'screen'",
                "used_turn = NOT used_turn",
                "user_id = 'mine'",
                "user_id = NULL",
                "user_id = 'anonymous_1'",
                "id = gen_random_uuid()",
                "created_at = '2000-01-01', updated_at = '2000-01-01'",
                "updated_at = '2000-01-01'",
                "(credit_cost, used_turn, user_id) = (0, false, 'mine')",
                "end_time = NULL",
            )
        ),
        (
            f"INSERT INTO call_sessions (id, room_id, mode) VALUES ('{call}', 'r', 'video')"
            " ON CONFLICT (id) DO UPDATE SET credit_cost = 0, user_id = 'mine', start_time = now()"
        ),
        (
            f"MERGE INTO call_sessions AS c USING (VALUES ('{call}'::uuid)) AS v (id) ON c.id = v.id"
            " WHEN MATCHED THEN UPDATE SET credit_cost = 0, user_id = 'mine'"
        ),
        f"SET LOCAL oblivion.reason = 'charge {call}'; UPDATE call_sessions SET credit_cost = 0 WHERE id = '{call}'",
    )
] + [
    # An ended call stays as it ended.
    Attack(f"UPDATE call_sessions SET end_time = {time} WHERE id = '{ENDED}'", NO_AVAIL, *who)
    for who in AS_ANYBODY
    for time in ("start_time", "'2000-01-01'", "'infinity'", "clock_timestamp() + interval '1 day'")
]


BY_HAND = [
    # Accounts: the balance, the tier, and whose they are.
    *both(
        DENIED,
        "UPDATE user_accounts SET subscription_tier = 'enterprise' WHERE user_id = 'mine'",
        "UPDATE user_accounts SET updated_at = '2001-01-01', email = 'x'",
        "INSERT INTO user_accounts (user_id) VALUES ('third')",
        "INSERT INTO user_accounts (user_id, email) VALUES ('theirs', 'x') ON CONFLICT DO NOTHING",
        "INSERT INTO user_accounts (user_id, email) VALUES ('theirs', 'x') ON CONFLICT (user_id)"
        " DO UPDATE SET email = excluded.email RETURNING *",
        "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('third', 100)",
        "INSERT INTO user_accounts (user_id, tokens_remaining) SELECT 'third', 100",
        "INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('mine', 100), ('theirs', 100)"
        " ON CONFLICT (user_id) DO UPDATE SET tokens_remaining = excluded.tokens_remaining",
        "INSERT INTO user_accounts (user_id, tokens_remaining, subscription_tier) VALUES ('mine', 1, 'enterprise')"
        " ON CONFLICT (user_id) DO UPDATE SET subscription_tier = excluded.subscription_tier",
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
        "UPDATE call_sessions SET user_id = 'mine' WHERE user_id = 'theirs' RETURNING *",
        "DELETE FROM call_sessions WHERE user_id = 'mine' RETURNING *",
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


# What a page may send if pages are metered, forged. In the authenticated mode it is refused if pages are trusted, and
# let through to no avail if they are metered: no balance changes, and no price, and nobody else's rows.
REASONS = ("page anon", "charge " + THEIRS, "top_up  free", "opening", "")
BALANCES = [
    *(
        f"UPDATE user_accounts SET {change} WHERE user_id = '{whose}'"
        for whose in ("mine", "theirs")
        for change in (
            "tokens_remaining = 999999",
            "tokens_remaining = 0",
            "tokens_remaining = tokens_remaining + 1",
            "user_id = 'other'",
            "user_id = 'mine'",
            "(user_id, tokens_remaining) = ('third', 999999)",
            "(user_id, tokens_remaining) = (SELECT 'third', 999999)",
            "(email, tokens_remaining) = ('x', 9)",
        )
    ),
    "UPDATE user_accounts SET tokens_remaining = DEFAULT",
    "UPDATE user_accounts SET tokens_remaining = 2147483647",
    "UPDATE user_accounts AS a SET tokens_remaining = 9 + b.tokens_remaining FROM user_accounts AS b",
    "WITH paid AS (UPDATE user_accounts SET tokens_remaining = 900 RETURNING *) SELECT max(user_id) FROM paid",
    (
        "MERGE INTO user_accounts AS a USING (VALUES ('mine', 999999), ('theirs', 0)) AS v (id, tokens)"
        " ON a.user_id = v.id WHEN MATCHED THEN UPDATE SET tokens_remaining = v.tokens"
    ),
    *(
        f"INSERT INTO user_accounts (user_id, email, tokens_remaining) VALUES ('mine', 'x', {tokens})"
        f" ON CONFLICT (user_id) DO UPDATE SET {update}"
        for tokens in (100, 999999, 0)
        for update in (
            "user_id = excluded.user_id, email = excluded.email, tokens_remaining = excluded.tokens_remaining",
            "tokens_remaining = user_accounts.tokens_remaining + 100",
            "user_id = 'third', tokens_remaining = 5",
        )
    ),
    (
        "INSERT INTO user_accounts (user_id, tokens_remaining) SELECT 'mine', n FROM generate_series(900, 902, 2) AS n"
        " ON CONFLICT DO NOTHING"
    ),
    *(
        f"SET LOCAL oblivion.reason = '{reason}'; UPDATE user_accounts SET tokens_remaining = 1000"
        for reason in REASONS
    ),
    "SET LOCAL oblivion.pages = 'trusted'; UPDATE user_accounts SET tokens_remaining = 1000",
    "SET LOCAL search_path = pg_temp; UPDATE public.user_accounts SET tokens_remaining = 1000",
    (
        "CREATE FUNCTION pg_temp.page_billing() RETURNS text LANGUAGE sql IMMUTABLE RETURN 'trusted';"
        " SET LOCAL search_path = pg_temp, public; UPDATE user_accounts SET tokens_remaining = 1000"
    ),
    (
        "CREATE TEMP TABLE user_accounts (user_id text, tokens_remaining integer);"
        " UPDATE public.user_accounts SET tokens_remaining = 1000"
    ),
    (
        "DEALLOCATE ALL; PREPARE pay AS UPDATE user_accounts SET tokens_remaining = $1; EXECUTE pay (1000);"
        " EXECUTE pay (1001)"
    ),
    (
        "DO $$ BEGIN UPDATE user_accounts SET tokens_remaining = 1000; EXCEPTION WHEN OTHERS THEN NULL; END $$;"
        " UPDATE user_accounts SET tokens_remaining = 1000"
    ),
]
PRICES = [
    # A call that has ended stays as it ended, and what a call costs is nobody's to say.
    *(
        f"UPDATE call_sessions SET {change} WHERE id = '{call}'"
        for call in (MY_ENDED_PAGE, THEIR_ENDED_PAGE, ENDED)
        for change in (
            "end_time = NULL",
            "end_time = NULL, used_turn = false, credit_cost = 0",
            "end_time = '2000-01-01'",
            "end_time = 'infinity'",
            "end_time = clock_timestamp() + interval '1 day', used_turn = true",
            "end_time = start_time, used_turn = false, credit_cost = 0.2",
            "used_turn = NOT used_turn",
        )
    ),
    *(
        f"UPDATE call_sessions SET credit_cost = {cost} WHERE id = '{call}'"
        for call in (MY_PAGE, MY_ENDED_PAGE, THEIR_PAGE, THEIR_ENDED_PAGE, MINE, THEIRS, ENDED)
        for cost in ("0", "-1000", "999999.9999", "'NaN'")
    ),
    f"UPDATE call_sessions SET end_time = NULL WHERE id = '{MY_PAGE}'",
    f"UPDATE call_sessions AS c SET credit_cost = a.tokens_remaining FROM user_accounts AS a WHERE c.id = '{MY_PAGE}'",
    (
        f"MERGE INTO call_sessions AS c USING (VALUES ('{MY_ENDED_PAGE}'::uuid)) AS v (id) ON c.id = v.id"
        " WHEN MATCHED THEN UPDATE SET end_time = NULL, credit_cost = 0"
    ),
    f"WITH c AS (UPDATE call_sessions SET credit_cost = 0 WHERE id = '{MY_PAGE}' RETURNING *) SELECT count(*) FROM c",
    *(
        f"SET LOCAL oblivion.reason = '{reason}'; UPDATE call_sessions SET end_time = NULL, credit_cost = 0"
        f" WHERE id = '{MY_ENDED_PAGE}'"
        for reason in REASONS
    ),
]
USAGE = [
    *(
        f"INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, duration_seconds)"
        f" VALUES ('mine', '{call}', {tokens}, 'video', false, 0)"
        for call in (MY_PAGE, MY_ENDED_PAGE, MINE)
        for tokens in (0, 2, 999999)
    ),
    (
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        f" VALUES ('mine', '{MY_PAGE}', 0, 'video', false) RETURNING *"
    ),
    (
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        f" SELECT user_id, '{MY_PAGE}', 0, mode, true FROM token_usage WHERE user_id = 'mine'"
    ),
    (
        'WITH logged AS (INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn, "timestamp")'
        f" VALUES ('mine', '{MY_PAGE}', 0, 'voice', false, '2000-01-01') RETURNING *) SELECT * FROM logged"
    ),
    (
        f"SET LOCAL oblivion.reason = 'charge {MY_PAGE}';"
        " INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        f" VALUES ('mine', '{MY_PAGE}', 0, 'video', false)"
    ),
]
BY_PAGES = [
    *user(DENIED, *BALANCES, *PRICES, *USAGE, metered=NO_AVAIL),
    *visitor(DENIED, *BALANCES, *PRICES, *USAGE),
    # Nobody else's calls end, those of the engine and of old clients included.
    *both(
        DENIED,
        *(
            statement.format(call=call)
            for call in (THEIR_PAGE, THEIR_ENDED_PAGE, THEIRS, ENDED, OLD)
            for statement in (
                "UPDATE call_sessions SET end_time = now(), used_turn = true WHERE id = '{call}' RETURNING *",
                "UPDATE call_sessions AS c SET end_time = now() FROM user_accounts AS a WHERE c.id = '{call}'",
                (
                    "MERGE INTO call_sessions AS c USING (VALUES ('{call}'::uuid)) AS v (id) ON c.id = v.id"
                    " WHEN MATCHED THEN UPDATE SET end_time = now()"
                ),
            )
        ),
        "SELECT * FROM call_sessions FOR UPDATE",
        metered=NO_AVAIL,
    ),
    # What the table refuses, it refuses, and what has no column's privilege stays without it.
    *both(DENIED, "UPDATE user_accounts SET tokens_remaining = -1", metered="23514"),
    *both(DENIED, "UPDATE user_accounts SET tokens_remaining = NULL", metered="23502"),
    *both(DENIED, f"UPDATE call_sessions SET credit_cost = NULL WHERE id = '{MY_PAGE}'", metered="23502"),
    *both("22003", f"UPDATE call_sessions SET credit_cost = 1e9 WHERE id = '{MY_PAGE}'"),
    *both(
        DENIED,
        "COPY user_accounts (user_id, tokens_remaining, email) FROM STDIN",
        "COPY token_usage (user_id, session_id, tokens_used, mode, used_turn) FROM STDIN",
        metered=NO_COPY_TO_GUARDED_ROWS,
    ),
    *both(
        DENIED,
        *(
            f"UPDATE call_sessions SET {change} WHERE id = '{call}'"
            for call in (MY_PAGE, MY_ENDED_PAGE, MINE)
            for change in (
                "id = gen_random_uuid()",
                "start_time = clock_timestamp()",
                "created_at = clock_timestamp()",
                "updated_at = '2000-01-01'",
                "user_id = 'theirs'",
                "user_id = NULL",
                "mode = 'voice-only'",
                "room_id = 'other'",
                "end_time = now(), user_id = 'anonymous_1'",
            )
        ),
        *(f"DELETE FROM call_sessions WHERE id = '{call}'" for call in (MY_PAGE, MY_ENDED_PAGE, MINE)),
        *(
            "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
            f" VALUES ('{whose}', '{call}', {tokens}, '{mode}', false)"
            for whose, call, tokens, mode in (
                ("theirs", THEIR_PAGE, 0, "video"),
                ("theirs", THEIR_ENDED_PAGE, 0, "video"),
                ("theirs", MY_PAGE, 0, "video"),
                ("mine", THEIR_PAGE, 0, "video"),
                ("mine", THEIR_ENDED_PAGE, 0, "video"),
                ("mine", OLD, 0, "video"),
                ("mine", "no call", 0, "video"),
                ("mine", MY_PAGE.replace("-", ""), 0, "video"),
                ("mine", f"{{{MY_PAGE}}}", 0, "video"),
                ("mine", "F" * 8 + MY_PAGE[8:], 0, "video"),
                ("mine", MY_PAGE, -1, "video"),
                ("mine", MY_PAGE, "NULL", "video"),
                ("mine", MY_PAGE, 0, "audio"),
            )
        ),
        "INSERT INTO token_usage (id, user_id, session_id, tokens_used, mode, used_turn)"
        f" SELECT id, 'mine', '{MY_PAGE}', 0, 'video', false FROM token_usage ON CONFLICT DO NOTHING",
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        f" VALUES ('mine', '{MY_ENDED_PAGE}', 0, 'video', false) ON CONFLICT (id) DO UPDATE SET tokens_used = 0",
        f"UPDATE token_usage SET tokens_used = 0 WHERE session_id = '{MY_ENDED_PAGE}'",
        f"DELETE FROM token_usage WHERE session_id = '{MY_ENDED_PAGE}'",
        "WITH c AS (INSERT INTO call_sessions (room_id, user_id, mode) VALUES ('r', 'theirs', 'video') RETURNING id)"
        " UPDATE call_sessions SET end_time = now() FROM c WHERE call_sessions.id = c.id",
        "DELETE FROM user_accounts WHERE user_id = 'mine'; INSERT INTO user_accounts VALUES ('mine', 100)",
    ),
]

# The same, where access is open and pages are metered: what nobody in the authenticated mode may try, too.
AMONG_ALL = [
    *BALANCES,
    *PRICES,
    *USAGE,
    *(
        f"UPDATE call_sessions SET {change} WHERE id = '{call}'"
        for call in (MY_PAGE, THEIR_PAGE, THEIR_ENDED_PAGE, THEIRS)
        for change in (
            "start_time = '2000-01-01'",
            "start_time = 'infinity', end_time = now()",
            "start_time = '2000-01-01', end_time = '2100-01-01'",
            "created_at = '2000-01-01', end_time = now()",
            "user_id = 'anonymous_1'",
            "user_id = NULL, end_time = now()",
            "user_id = 'mine', end_time = now()",
            "mode = 'voice-only', end_time = now()",
            "id = gen_random_uuid()",
            "end_time = '-infinity'",
            "end_time = '2000-01-01'",
            "end_time = '9999-01-01', used_turn = true, credit_cost = -5",
        )
    ),
    "UPDATE call_sessions SET end_time = now()",
    (
        f"UPDATE call_sessions SET end_time = now() WHERE id IN ('{MY_PAGE}', '{THEIR_PAGE}', '{THEIRS}');"
        " UPDATE call_sessions SET end_time = NULL WHERE end_time >= now() AND user_id IS NOT NULL AND credit_cost > 1;"
        f" UPDATE call_sessions SET end_time = '2100-01-01' WHERE id IN ('{MY_PAGE}', '{THEIR_PAGE}', '{THEIRS}')"
    ),
    "UPDATE call_sessions SET used_turn = true; UPDATE call_sessions SET end_time = now(), used_turn = false",
    "INSERT INTO call_sessions (room_id, user_id, mode, start_time) VALUES ('r', 'theirs', 'video', '2000-01-01')",
    (
        "INSERT INTO call_sessions (room_id, user_id, mode, start_time, created_at)"
        " VALUES ('r', 'theirs', 'video', '2000-01-01', '2000-01-01'); UPDATE call_sessions SET end_time = now()"
    ),
    (
        "INSERT INTO call_sessions (room_id, user_id, mode, credit_cost) VALUES ('r', 'theirs', 'video', 1000);"
        " UPDATE call_sessions SET end_time = now(), credit_cost = 1000"
    ),
    (
        f"INSERT INTO call_sessions (id, room_id, user_id, mode) VALUES ('{THEIR_ENDED_PAGE}', 'r', 'mine', 'video')"
        " ON CONFLICT (id) DO UPDATE SET user_id = 'mine', end_time = NULL, created_at = excluded.created_at"
    ),
    "DELETE FROM call_sessions",
    f"SELECT * FROM tick_call('{THEIR_PAGE}')",
    (
        f"SELECT * FROM set_call_turn('{THEIR_PAGE}', true); SELECT * FROM end_call('{THEIR_PAGE}');"
        f" UPDATE call_sessions SET end_time = now() WHERE id = '{THEIR_PAGE}'"
    ),
    # Accounts that are opened, closed, and opened again.
    *(
        f"INSERT INTO user_accounts (user_id, tokens_remaining, subscription_tier) VALUES ('{user}', {tokens}, 'pro')"
        " ON CONFLICT DO NOTHING"
        for user in ("third", "mine")
        for tokens in (100, 101, 5000000, 2147483647)
    ),
    "INSERT INTO user_accounts (user_id) VALUES ('third')",
    "INSERT INTO user_accounts (user_id, tokens_remaining) SELECT 'n' || n, 1000 * n FROM generate_series(1, 5) AS n",
    (
        "MERGE INTO user_accounts AS a USING (VALUES ('third')) AS v (id) ON a.user_id = v.id"
        " WHEN NOT MATCHED THEN INSERT (user_id, tokens_remaining) VALUES (v.id, 999999)"
    ),
    *(
        f"DELETE FROM user_accounts WHERE user_id = '{user}';"
        f" INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('{user}', {tokens})"
        for user in ("mine", "theirs")
        for tokens in (100, 999999, 1)
    ),
    "DELETE FROM user_accounts",
    *(
        f"SET LOCAL oblivion.reason = '{reason}'; DELETE FROM user_accounts WHERE user_id = 'mine';"
        " INSERT INTO user_accounts (user_id, tokens_remaining) VALUES ('mine', 1000)"
        for reason in REASONS
    ),
    "DELETE FROM user_accounts WHERE user_id = 'mine'; UPDATE user_accounts SET user_id = 'mine'",
    # Usage of metered calls, under every name.
    *(
        f"{statement} WHERE session_id = '{call}'"
        for call in (MY_ENDED_PAGE, THEIR_ENDED_PAGE, ENDED)
        for statement in (
            "UPDATE token_usage SET tokens_used = 0",
            "UPDATE token_usage SET session_id = 'other'",
            "UPDATE token_usage SET user_id = 'mine', id = gen_random_uuid()",
            "UPDATE token_usage SET (mode, used_turn, duration_seconds) = ('voice', true, 0)",
            "DELETE FROM token_usage",
        )
    ),
    "DELETE FROM token_usage",
    "UPDATE token_usage SET tokens_used = 7",
    "MERGE INTO token_usage AS t USING token_usage AS u ON t.id = u.id WHEN MATCHED THEN UPDATE SET tokens_used = 0",
    "MERGE INTO token_usage AS t USING token_usage AS u ON t.id = u.id WHEN MATCHED THEN DELETE",
    "INSERT INTO token_usage SELECT * FROM token_usage ON CONFLICT (id) DO UPDATE SET tokens_used = 0",
    *(
        "INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        f" VALUES ('{whose}', '{call}', 900, 'video', false)"
        for whose in ("mine", "theirs")
        for call in (THEIR_PAGE, THEIR_ENDED_PAGE, THEIRS, ENDED, OLD)
    ),
    # An old client's call, and nobody's, with a start that was forged, or that has ended before.
    (
        f"UPDATE call_sessions SET created_at = '2026-11-01' WHERE id = '{OLD}';"
        f" UPDATE call_sessions SET end_time = now() WHERE id = '{OLD}'"
    ),
    (
        "INSERT INTO call_sessions (id, room_id, user_id, mode, created_at)"
        f" VALUES ('{NEW}', 'r', 'anonymous_1', 'video', '2026-01-01');"
        f" UPDATE call_sessions SET user_id = 'theirs' WHERE id = '{NEW}';"
        f" UPDATE call_sessions SET end_time = now() WHERE id = '{NEW}'"
    ),
    "UPDATE call_sessions SET end_time = NULL; UPDATE call_sessions SET end_time = now()",
    # A call that has ended when it is inserted, which settle_calls() bills up to the end that the page says.
    (
        "INSERT INTO call_sessions (room_id, user_id, mode, end_time)"
        " VALUES ('r', 'theirs', 'video', now() + interval '1 month')"
    ),
    (
        "INSERT INTO call_sessions (room_id, user_id, mode, start_time, end_time)"
        " VALUES ('r', 'theirs', 'video', '2026-11-01', now())"
    ),
    # Usage of an old client's call that becomes a metered call's.
    f"UPDATE token_usage SET session_id = '{THEIR_PAGE}' WHERE session_id = 'call of theirs'",
    f"UPDATE token_usage SET session_id = '{THEIR_ENDED_PAGE}' WHERE session_id = 'call of theirs'",
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


# How each function that runs with its owner's rights is reached in the open mode, by the role that may most.
DEFINERS = {
    "oblivion.host_presence": "SELECT * FROM public.host_presence('mine', '1 day')",
    "oblivion.call_quote": "SELECT * FROM public.call_quote('mine', 'video')",
    "oblivion.explain_call": f"SELECT * FROM public.explain_call('{MINE}')",
    "oblivion.start_call": "SELECT status, balance FROM public.start_call('mine', 'r', 'voice-only', true, 'new')",
    "oblivion.advance_call": f"SELECT * FROM public.set_call_turn('{MINE}', false)",
    "oblivion.tick_call": f"SELECT * FROM public.tick_call('{MINE}')",
    "oblivion.end_call": f"SELECT * FROM public.end_call('{MINE}')",
    "oblivion.top_up": "SELECT * FROM public.top_up('mine', 7, 'new')",
    "oblivion.refund_call": f"SELECT * FROM public.refund_call('{MINE}', 1, 'new')",
    "oblivion.sweep_calls": (
        "SELECT session_id, status, charged FROM public.reap_stale_calls('0 seconds') ORDER BY session_id"
    ),
    "oblivion.write_ledger": "UPDATE public.user_accounts SET tokens_remaining = 9 WHERE user_id = 'mine'",
    "oblivion.close_ledger": "TRUNCATE public.user_accounts CASCADE",
    "oblivion.guard_metered_call": f"UPDATE public.call_sessions SET end_time = '2000-01-01' WHERE id = '{MINE}'",
    "oblivion.settle_deleted_call": f"DELETE FROM public.call_sessions WHERE id = '{MINE}'",
    "oblivion.note_usage": "DELETE FROM public.user_accounts",
    "oblivion.note_calls": f"UPDATE public.call_sessions SET room_id = 's', mode = 'video' WHERE id = '{MINE}'",
    "oblivion.clear_rollups": "TRUNCATE public.token_usage",
    "oblivion.bar_truncate": "TRUNCATE public.user_presence",
    "oblivion.correct_meter": f"UPDATE public.call_sessions SET start_time = start_time WHERE id = '{MINE}'",
}
# The same for triggers on what a page sends if pages are metered, and for one that runs with the page's own rights.
AS_A_PAGE = {
    "oblivion.meter_page_call": (
        f"INSERT INTO public.call_sessions (id, room_id, user_id, mode) VALUES ('{NEW}', 'new', 'mine', 'video');"
        f" UPDATE public.call_sessions SET end_time = '2000-01-01' WHERE id = '{NEW}'"
    ),
    "oblivion.bill_page_call": (
        f"UPDATE public.call_sessions SET end_time = '2000-01-01', used_turn = true WHERE id = '{MY_PAGE}'"
    ),
    "oblivion.guard_account": (
        "DELETE FROM public.user_accounts WHERE user_id = 'mine';"
        " INSERT INTO public.user_accounts (user_id, tokens_remaining) VALUES ('new', 999)"
    ),
    "oblivion.guard_usage": (
        "INSERT INTO public.token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        f" VALUES ('mine', '{MY_PAGE}', 9, 'video', false); UPDATE public.token_usage SET tokens_used = 0"
    ),
    "oblivion.update_account": "UPDATE public.user_accounts SET tokens_remaining = 9, user_id = 'new'",
}
# The same for a signed-in user, and for Supabase's sign-up.
AS_A_USER = {"oblivion.open_account": "SELECT * FROM public.open_account()"}
AT_SIGN_UP = {"oblivion.open_account_of_user": "INSERT INTO auth.users VALUES ('new', 'mail')"}
ALL_DEFINERS = DEFINERS | AS_A_PAGE | AS_A_USER | AT_SIGN_UP
PATHS = ("pg_temp, public", "pg_temp, pg_catalog, public", "public, pg_temp", "pg_temp")


def search_paths() -> Iterator[Attack]:
    """Decoys before what the owner's functions read: they must take neither these nor what comes with them."""
    raises = "LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'as %', current_user; END $$"
    decoys = (
        "CREATE TEMP TABLE user_presence (host_id text, is_available boolean, room_id text, updated_at timestamptz);"
        f" CREATE FUNCTION pg_temp.equal(text, text) RETURNS boolean {raises};"
        " CREATE OPERATOR pg_temp.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pg_temp.equal);"
        f" CREATE FUNCTION pg_temp.host_presence(host_id text) RETURNS boolean {raises};"
    )
    for path, name in itertools.product(PATHS, ("host_presence", "call_quote", "explain_call")):
        yield from both(NO_AVAIL, f"{decoys} SET LOCAL search_path = {path}; {DEFINERS[f'oblivion.{name}']}")


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
        *((DENIED, f"SELECT * FROM start_call({name}, 'r', 'video')") for name in NAMES if name != "NULL"),
        *((NO_AVAIL, refused(f"end_call('{call}')")) for call in (MINE, THEIRS, OLD)),
        (NO_AVAIL, refused("call_quote('theirs', 'video')", echoes_call=False)),
        (NO_AVAIL, f"SELECT mode::integer FROM explain_call('{THEIRS}')"),
    ):
        yield Attack(sql, refusal, "authenticated", claims)


# Of triggers and functions which transaction wrote their rows of the catalogs: it is asked after each attack, and to
# print them took most of its time.
STATE = """
SELECT string_agg(state, E'\\n' ORDER BY state) FROM (
  SELECT u::text AS state FROM public.user_accounts AS u
  UNION ALL SELECT c::text FROM public.call_sessions AS c
  UNION ALL SELECT t::text FROM public.token_usage AS t
  UNION ALL SELECT p::text FROM public.user_presence AS p
  UNION ALL SELECT r::text FROM public.token_rates AS r
  UNION ALL SELECT l::text FROM public.token_ledger AS l
  UNION ALL SELECT m::text FROM oblivion.call_meters AS m
  UNION ALL SELECT s::text FROM oblivion.call_segments AS s
  UNION ALL SELECT i::text FROM oblivion.billing_incidents AS i
  UNION ALL SELECT concat('sign-up ', s) FROM oblivion.sign_up AS s
  UNION ALL SELECT concat('trigger ', oid, ' ', xmin) FROM pg_trigger
  UNION ALL SELECT concat(relname, relacl) FROM pg_class
  WHERE relnamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)
  UNION ALL SELECT concat('function ', oid, ' ', xmin) FROM pg_proc
  WHERE pronamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)
  UNION ALL SELECT concat(nspname, nspacl) FROM pg_namespace WHERE nspname IN ('public', 'oblivion')
) AS everything
"""
# Where pages are metered, a user may write to the own account and calls; what matters of them does not change.
STATE_OF_METERED = STATE.replace(
    "u::text", "CASE user_id WHEN 'mine' THEN (to_jsonb(u) - '{updated_at,email}'::text[])::text ELSE u::text END"
).replace("c::text", "CASE user_id WHEN 'mine' THEN (to_jsonb(c) - 'updated_at')::text ELSE c::text END")
# What is left of that where everybody may write: all that the engine has written.
BOOKS = """
SELECT string_agg(state, E'\\n' ORDER BY state) FROM (
  SELECT concat(user_id, tokens_remaining) AS state FROM public.user_accounts
  UNION ALL SELECT concat_ws(' ', id, start_time, end_time, mode, used_turn, credit_cost, user_id, created_at)
  FROM public.call_sessions WHERE id IN (SELECT session_id FROM oblivion.call_meters)
  UNION ALL SELECT concat('call ', count(*)) FROM public.call_sessions
  UNION ALL SELECT 'last seen long ago' FROM public.call_sessions WHERE updated_at < now() - interval '1 day'
  UNION ALL SELECT t::text FROM public.token_usage AS t
  UNION ALL SELECT l::text FROM public.token_ledger AS l
  UNION ALL SELECT m::text FROM oblivion.call_meters AS m
  UNION ALL SELECT s::text FROM oblivion.call_segments AS s
  UNION ALL SELECT i::text FROM oblivion.billing_incidents AS i
  UNION ALL SELECT concat('sign-up ', s) FROM oblivion.sign_up AS s
  UNION ALL SELECT concat('trigger ', oid, ' ', xmin) FROM pg_trigger
  UNION ALL SELECT concat('function ', oid, ' ', xmin) FROM pg_proc
  WHERE pronamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)
) AS everything
"""


@pytest.fixture(scope="module", params=["trusted", "metered"])
def pages(request: pytest.FixtureRequest) -> PageBilling:
    """Who bills the calls of pages."""
    return "metered" if request.param == "metered" else "trusted"


@pytest.fixture(scope="module")
def besieged(module_database: Callable[[str], URL], pages: PageBilling) -> URL:
    """The database that is attacked, with statistics, which hold values of rows, too."""
    url = module_database("supabase-new")
    oblivion_schema.upgrade(url, access="authenticated", pages=pages, demo=False)
    execute(url, ROWS_OF_TWO_USERS)
    execute(url, METERED_CALLS)
    execute(url, "ANALYZE")
    return url


@pytest.fixture
def open_with_calls(open_to_both: URL) -> URL:
    """A database in the open mode with metered calls."""
    execute(open_to_both, METERED_CALLS)
    return open_to_both


def switch(url: URL, *command: str) -> None:
    """Switch a mode, by its SQL: the command would let Ctrl-C cancel statements, see `blocking()`."""
    execute(url, run(*command, "--sql").out)


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


def successes(
    besieged: URL, attacks: Iterable[Attack], what: str = "", pages: str = "trusted"
) -> list[tuple[object, ...]]:
    """Those of the attacks, sent one after the other, that did not fail as they should, and what came of them.

    `what` reads what none of them may change.
    """
    what = what or (STATE_OF_METERED if pages == "metered" else STATE)
    owner = psycopg2.connect(libpq(besieged))
    owner.autocommit = True
    watch = owner.cursor()
    watch.execute(f"PREPARE state AS {what}")

    def state() -> object:
        watch.execute("EXECUTE state")
        return watch.fetchone()

    before = state()
    connection = psycopg2.connect(libpq(besieged.set(username="authenticator", password="authenticator")))
    found: list[tuple[object, ...]] = []
    for attack in attacks:
        refusal, seen = sent(connection, attack)
        after = state()
        if refusal != attack.expected(pages) or "theirs" in seen or after != before:
            found.append((attack, refusal, seen, "changed" if after != before else "unchanged"))
            before = after
    connection.close()
    owner.close()
    return found


def repel(
    besieged: URL, request: pytest.FixtureRequest, attacks: Iterable[Attack], what: str = "", pages: str = "trusted"
) -> None:
    """Send attacks, of which each has to fail, and count them; the quick set sends every fifth."""
    its = list(attacks)[:: examples(1, quick=5)]
    assert its
    assert successes(besieged, its, what, pages) == []
    request.node.user_properties.append(("attacks", len(its)))


BY_KIND = {
    "tables": on_tables,
    "views": on_views,
    "private relations": on_private_relations,
    "hand": lambda: iter(BY_HAND),
    "pages": lambda: iter(BY_PAGES),
    "books": lambda: iter(ON_THE_BOOKS),
    "calls": lambda: iter(ON_CALLS),
    "leaky functions": leaks,
    "search_path": search_paths,
}


@pytest.mark.parametrize("kind", BY_KIND)
@pytest.mark.server
def test_attack_fails(besieged: URL, request: pytest.FixtureRequest, kind: str, pages: PageBilling) -> None:
    repel(besieged, request, BY_KIND[kind](), pages=pages)


@pytest.mark.parametrize("billing", ["trusted", "metered"])
def test_attack_on_the_books_fails_in_the_open_mode(
    open_with_calls: URL, request: pytest.FixtureRequest, billing: str
) -> None:
    switch(open_with_calls, "pages", billing)
    repel(open_with_calls, request, [*ON_THE_BOOKS, *on_private_relations()], BOOKS)
    repel(open_with_calls, request, ON_METERED_ROWS, BOOKS)


# What must not be, after any statement of a page: compared with the tables of schema `before`.
REMEMBERED = """
CREATE SCHEMA before;
CREATE TABLE before.accounts AS SELECT * FROM public.user_accounts;
CREATE TABLE before.calls AS SELECT * FROM public.call_sessions;
CREATE TABLE before.usage AS SELECT * FROM public.token_usage;
CREATE TABLE before.meters AS SELECT * FROM oblivion.call_meters;
CREATE TABLE before.ledger AS SELECT * FROM public.token_ledger;
"""
AMISS = """
SELECT 'balance not as billed', a.user_id, a.tokens_remaining
FROM public.user_accounts AS a
JOIN before.accounts AS b USING (user_id)
WHERE a.tokens_remaining > b.tokens_remaining OR a.tokens_remaining <> b.tokens_remaining + coalesce((
    SELECT sum(l.tokens) FROM public.token_ledger AS l
    WHERE l.user_id = a.user_id AND l.id > (SELECT max(id) FROM before.ledger)
  ), 0)
UNION ALL
SELECT 'balance out of nothing', a.user_id, a.tokens_remaining
FROM public.user_accounts AS a
WHERE a.tokens_remaining > 100
UNION ALL
SELECT 'not what the engine writes', l.user_id, l.tokens
FROM public.token_ledger AS l
WHERE l.id > (SELECT max(id) FROM before.ledger) AND l.kind NOT IN ('charge', 'opening', 'closing')
UNION ALL
SELECT 'charge of more than the minutes that were', m.user_id, m.cost
FROM oblivion.call_meters AS m
LEFT JOIN before.calls AS c ON c.id = m.session_id
LEFT JOIN before.meters AS b USING (session_id)
WHERE m.started_at < coalesce(b.started_at, c.created_at, now())
  OR m.cost > ceil(date_part('epoch', clock_timestamp() - m.started_at) / 60) * m.turn_rate
UNION ALL
SELECT 'user, rate or start of a metered call', m.user_id, m.cost
FROM oblivion.call_meters AS m
JOIN before.meters AS b USING (session_id)
WHERE (m.user_id, m.mode, m.direct_rate, m.turn_rate, m.started_at)
  IS DISTINCT FROM (b.user_id, b.mode, b.direct_rate, b.turn_rate, b.started_at)
UNION ALL
SELECT 'row of a metered call', c.user_id, m.cost
FROM public.call_sessions AS c
JOIN oblivion.call_meters AS m ON m.session_id = c.id
LEFT JOIN before.calls AS b ON b.id = c.id
WHERE b.end_time IS NOT NULL AND (c.end_time, c.used_turn, c.credit_cost) <> (b.end_time, b.used_turn, b.credit_cost)
  OR (c.user_id, c.mode, c.start_time) IS DISTINCT FROM (b.user_id, b.mode, b.start_time) AND b.id IS NOT NULL
  OR c.end_time IS NULL AND m.settled
  OR c.end_time IS NOT NULL AND c.credit_cost <> m.cost
UNION ALL
SELECT 'usage that is not the cost of its call', m.user_id, m.cost
FROM oblivion.call_meters AS m
WHERE (
    SELECT coalesce(sum(u.tokens_used), 0) FROM public.token_usage AS u WHERE u.session_id = m.session_id::text
  ) > m.cost
  OR m.settled AND EXISTS (SELECT FROM public.user_accounts AS a WHERE a.user_id = m.user_id)
  AND NOT EXISTS (
    SELECT FROM public.token_ledger AS l
    WHERE l.user_id = m.user_id AND l.kind = 'closing' AND l.id > (SELECT max(id) FROM before.ledger)
  )
  AND m.cost <> (
    SELECT coalesce(sum(u.tokens_used), 0) FROM public.token_usage AS u WHERE u.session_id = m.session_id::text
  )
UNION ALL
SELECT 'usage of a metered call', t.user_id, t.tokens_used
FROM before.usage AS b
JOIN before.meters AS m ON m.session_id::text = b.session_id
JOIN public.user_accounts AS a ON a.user_id = b.user_id
LEFT JOIN public.token_usage AS t ON t.id = b.id
WHERE m.settled AND t IS DISTINCT FROM b::text::public.token_usage AND NOT EXISTS (
    SELECT FROM public.token_ledger AS l
    WHERE l.user_id = b.user_id AND l.kind = 'closing' AND l.id > (SELECT max(id) FROM before.ledger)
  )
UNION ALL
SELECT 'charge for another''s call', l.user_id, l.tokens
FROM public.token_ledger AS l
LEFT JOIN before.calls AS c ON c.id = l.session_id
LEFT JOIN public.call_sessions AS d ON d.id = l.session_id
WHERE l.kind = 'charge' AND coalesce(c.user_id, d.user_id) <> l.user_id
UNION ALL
SELECT 'books', user_id, drift FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0 OR balance < 0
"""


def gains(url: URL, statements: Iterable[str], who: tuple[str, str]) -> list[tuple[object, ...]]:
    """The statements after which something is amiss, each sent in a transaction of its own, which is rolled back."""
    found: list[tuple[object, ...]] = []
    connection = psycopg2.connect(libpq(url))
    with connection.cursor() as cursor:
        for sql in statements:
            settings = "SELECT set_config('role', %s, true), set_config('request.jwt.claims', %s, true)"
            cursor.execute(settings, who)
            try:
                cursor.execute(sql)
                # What comes to light only later: a call that has ended, and was not billed then.
                cursor.execute("RESET ROLE; SET LOCAL search_path = public; SELECT settle_calls()")
                cursor.execute(AMISS)
                if amiss := cursor.fetchall():
                    found.append((sql, *amiss))
            except psycopg2.errors.InsufficientPrivilege as error:
                found.append((sql, str(error)))  # nothing of the sort is expected here
            except psycopg2.Error:
                pass  # refused
            connection.rollback()
    connection.close()
    return found


@pytest.mark.parametrize("who", [VISITOR, USER], ids=["visitor", "user"])
@pytest.mark.server
def test_nobody_gains_where_access_is_open_and_pages_are_metered(
    open_with_calls: URL, request: pytest.FixtureRequest, who: tuple[str, str]
) -> None:
    switch(open_with_calls, "pages", "metered")
    execute(open_with_calls, "DELETE FROM user_accounts WHERE user_id NOT IN ('mine', 'theirs')")
    execute(open_with_calls, REMEMBERED)
    assert query(open_with_calls, AMISS) == []
    its = AMONG_ALL[:: examples(1, quick=5)]
    assert gains(open_with_calls, its, who) == []
    request.node.user_properties.append(("attacks", len(its)))


def test_gain_is_seen_where_pages_are_trusted(open_with_calls: URL) -> None:
    execute(open_with_calls, "DELETE FROM user_accounts WHERE user_id NOT IN ('mine', 'theirs')")
    execute(open_with_calls, REMEMBERED)
    assert query(open_with_calls, AMISS) == []
    assert len(gains(open_with_calls, BALANCES, VISITOR)) >= 30
    assert len(gains(open_with_calls, AMONG_ALL, VISITOR)) >= 70


def test_attack_on_metered_rows_is_what_the_guards_repel(open_with_calls: URL) -> None:
    execute(open_with_calls, "DROP TRIGGER guard_metered_call ON call_sessions")
    assert len(successes(open_with_calls, ON_METERED_ROWS, BOOKS)) >= 30


@pytest.mark.parametrize("mode", ["open", "authenticated"])
def test_charge_is_labelled_by_the_engine_whatever_the_session_has_set(open_with_calls: URL, mode: str) -> None:
    switch(open_with_calls, "access", mode)
    execute(
        open_with_calls, f"UPDATE call_sessions SET start_time = start_time - interval '1 hour' WHERE id = '{MINE}'"
    )
    before = query(open_with_calls, "SELECT max(id) FROM token_ledger")
    forged = f"SET LOCAL oblivion.reason = 'top_up {THEIRS} free'; SELECT charged, shortfall FROM end_call('{MINE}')"
    [(attack, _, seen, changed)] = successes(open_with_calls, user(NO_AVAIL, forged))
    assert changed == "changed", (attack, seen)
    written = f"SELECT kind, tokens, session_id::text, key FROM token_ledger WHERE id > {before[0][0]}"
    assert query(open_with_calls, written) == [("charge", -36, MINE, None)]
    assert query(open_with_calls, "SELECT * FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0") == []


def test_forged_claims_reach_nothing(besieged: URL, request: pytest.FixtureRequest) -> None:
    repel(besieged, request, itertools.chain.from_iterable(forged(claims) for claims in CLAIMS))


@pytest.mark.server
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


DOMAINS = (
    "date",
    "jsonb",
    "text",
    "bool",
    "name",
    "timestamptz",
    "uuid",
    "numeric",
    "int4",
    "int8",
    "float8",
    "interval",
)


@pytest.mark.server
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
            *(f"CREATE DOMAIN pg_temp.{name} AS pg_catalog.{name} CHECK (pg_temp.took(value))" for name in DOMAINS),
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
                (signed_in("theirs"), "SELECT * FROM public.call_quote('theirs', 'video')"),
                (signed_in("theirs"), "SELECT * FROM public.start_call('theirs', 'r', 'video', false, 'new')"),
                (signed_in("theirs"), f"SELECT * FROM public.tick_call('{THEIRS}')"),
                (signed_in("theirs"), f"SELECT * FROM public.set_call_turn('{THEIRS}', false)"),
                (signed_in("theirs"), f"SELECT * FROM public.end_call('{THEIRS}')"),
                (signed_in("theirs"), f"SELECT * FROM public.end_call('{OLD}')"),
                (signed_in("theirs"), f"SELECT count(*) FROM public.explain_call('{THEIRS}')"),
            ):
                cursor.execute("SELECT set_config('role', 'authenticated', true)")
                cursor.execute("SELECT set_config('request.jwt.claims', %s, true)", (claims,))
                cursor.execute(sql)
                assert not cursor.description or cursor.fetchone()
                connection.commit()
    finally:
        connection.close()


# Under every name that a function could mean by itself: relations and types are looked for in pg_temp first.
DECOYS = "; ".join(
    [
        *(f"CREATE TEMP TABLE {name} (decoy integer)" for name in (*TABLES, *PRIVATE, "token_rates")),
        (
            "CREATE FUNCTION pg_temp.took(anyelement) RETURNS boolean LANGUAGE plpgsql"
            " AS $$ BEGIN RAISE EXCEPTION 'took % as %', $1, current_user; END $$"
        ),
        *(f"CREATE DOMAIN pg_temp.{name} AS pg_catalog.{name} CHECK (pg_temp.took(value))" for name in DOMAINS),
        "CREATE TYPE pg_temp.record AS (decoy integer)",
        *(
            f"CREATE FUNCTION pg_temp.{name} LANGUAGE plpgsql"
            " AS $$ BEGIN RAISE EXCEPTION 'called as %', current_user; END $$"
            for name in (
                "clock_timestamp() RETURNS pg_catalog.timestamptz",
                "current_setting(pg_catalog.text, pg_catalog.bool) RETURNS pg_catalog.text",
                "set_config(pg_catalog.text, pg_catalog.text, pg_catalog.bool) RETURNS pg_catalog.text",
                "gen_random_uuid() RETURNS pg_catalog.uuid",
                "bill_call() RETURNS pg_catalog.text",
                "minus(pg_catalog.int4, pg_catalog.int4) RETURNS pg_catalog.int4",
                "equal(pg_catalog.text, pg_catalog.text) RETURNS pg_catalog.bool",
                "equal(pg_catalog.uuid, pg_catalog.uuid) RETURNS pg_catalog.bool",
            )
        ),
        *(
            f"CREATE OPERATOR pg_temp.{operator} (LEFTARG = pg_catalog.{of}, RIGHTARG = pg_catalog.{of},"
            f" FUNCTION = pg_temp.{function})"
            for operator, of, function in (("-", "int4", "minus"), ("=", "text", "equal"), ("=", "uuid", "equal"))
        ),
    ]
)
# What came of it, in the same transaction.
OUTCOME = """
SELECT 'account', user_id, tokens_remaining::pg_catalog.text FROM public.user_accounts
UNION ALL SELECT kind, user_id, pg_catalog.concat(tokens, balance, session_id, key) FROM public.token_ledger
UNION ALL SELECT 'usage', session_id, pg_catalog.concat(tokens_used, mode, used_turn) FROM public.token_usage
UNION ALL SELECT 'call', room_id, pg_catalog.concat(mode, used_turn, credit_cost, end_time IS NULL)
FROM public.call_sessions
ORDER BY 1, 2, 3
"""


@pytest.mark.parametrize("function", ALL_DEFINERS)
@pytest.mark.server
@pytest.mark.few(function=(0, 5, 10, 19))
def test_function_of_the_owner_takes_no_decoy(open_with_calls: URL, function: str) -> None:
    if function in AS_A_PAGE:
        switch(open_with_calls, "pages", "metered")
    execute(
        open_with_calls,
        "SELECT oblivion.allow_sign_up(7); CREATE SCHEMA auth; CREATE TABLE auth.users (id text, email text);"
        " GRANT USAGE ON SCHEMA auth TO service_role; GRANT INSERT ON auth.users TO service_role;"
        " CREATE TRIGGER t AFTER INSERT ON auth.users FOR EACH ROW EXECUTE FUNCTION oblivion.open_account_of_user()",
    )
    execute(
        open_with_calls, f"UPDATE call_sessions SET start_time = start_time - interval '1 hour' WHERE id = '{MINE}'"
    )

    def outcome(*before: str) -> object:
        connection = psycopg2.connect(libpq(open_with_calls.set(username="authenticator", password="authenticator")))
        try:
            with connection.cursor() as cursor:
                role = {**dict.fromkeys(AS_A_PAGE, "anon"), **dict.fromkeys(AS_A_USER, "authenticated")}
                claims = f"SET LOCAL request.jwt.claims = '{signed_in('new')}'"
                for sql in (f"SET LOCAL ROLE {role.get(function, 'service_role')}", claims, *before):
                    cursor.execute(sql)
                try:
                    cursor.execute(ALL_DEFINERS[function])
                except psycopg2.errors.InsufficientPrivilege as error:
                    return str(error)
                came = cursor.fetchall() if cursor.description else cursor.rowcount
                cursor.execute(f"SET LOCAL search_path = pg_catalog; {OUTCOME}")
                return came, cursor.fetchall()
        finally:
            connection.close()

    plain = outcome()
    assert plain == outcome(), "it is the same each time"
    for path in PATHS:
        assert outcome(DECOYS, f"SET LOCAL search_path = {path}") == plain, path


def test_every_function_with_its_owners_rights_is_attacked(besieged: URL) -> None:
    found = query(
        besieged,
        "SELECT concat(pronamespace::regnamespace, '.', proname) FROM pg_proc WHERE prosecdef"
        " AND pronamespace IN ('public'::regnamespace, 'oblivion'::regnamespace)",
    )
    assert {name for (name,) in found} == ALL_DEFINERS.keys() - {"oblivion.update_account"}


@pytest.mark.parametrize(
    ("kind", "at_least"),
    [("tables", 30), ("views", 10), ("hand", 25), ("pages", 100), ("leaky functions", 30), ("calls", 40)],
)
@pytest.mark.few(kind=("views", "hand"))
def test_attack_that_succeeds_is_seen(open_with_calls: URL, kind: str, at_least: int) -> None:
    """In the open mode many do, until one of them has deleted what there was."""
    execute(open_with_calls, "ANALYZE")
    assert len(successes(open_with_calls, BY_KIND[kind]())) >= at_least


MONEY = (
    "top_up('mine', 1000, 'free')",
    f"refund_call('{MINE}', 1, 'back')",
    "reap_stale_calls('0 seconds', 1000, '0 seconds')",
    "settle_calls()",
    "burn_calls()",
)
# Of schema oblivion, of which only a page that somebody gave USAGE has the names.
RETENTION = (
    "oblivion.trim_ledger('infinity')",
    "oblivion.fold_charges('infinity')",
    "oblivion.rebuild_ledger()",
    "oblivion.rebuild_rollups()",
    "oblivion.restart_identities()",
    "oblivion.top_up('mine', 1000, 'free')",
    f"oblivion.refund_call('{MINE}', 1, 'back')",
    "oblivion.sweep_calls('reap', 1000)",
)
# Whatever they answer, they win nothing. The engine's own functions believe no page that says who it is.
INTERNAL = (
    "oblivion.fold_usage(1000)",
    "oblivion.fold_calls(1000)",
    "oblivion.credit_account('mine', 1000, 'k', 'top_up', NULL, NULL)",
    f"oblivion.meter_call('{OLD}', 'theirs', 'video', now() - interval '1 year')",
    f"oblivion.unmeter_call('{MINE}')",
    "oblivion.note_incident(gen_random_uuid(), 'theirs', 'tick', '', '')",
    *(
        f"oblivion.{function}"
        for caller in ("'service_role'", "'postgres'", "(SELECT nspowner::regrole::text FROM pg_namespace LIMIT 1)")
        for call in (THEIRS, OLD)
        for function in (
            f"advance_call('{call}', 'end', NULL, {caller})",
            f"advance_call('{call}', 'settle', NULL, {caller})",
            f"advance_call('{call}', 'turn', true, {caller})",
            f"tick_call('{call}', {caller})",
            f"end_call('{call}', {caller})",
            f"explain_call('{call}', {caller})",
            f"call_quote('theirs', 'video', false, {caller})",
            f"start_call('theirs', 'r', 'video', false, NULL, {caller})",
        )
    ),
)


PURSES = """
SELECT
  (SELECT array_agg(a::text ORDER BY user_id) FROM user_accounts AS a),
  (SELECT array_agg(l::text ORDER BY user_id, id) FROM token_ledger AS l),
  (SELECT array_agg(c::text ORDER BY id) FROM call_sessions AS c),
  (SELECT array_agg(m::text ORDER BY session_id) FROM oblivion.call_meters AS m),
  (SELECT array_agg(i::text ORDER BY id) FROM oblivion.billing_incidents AS i),
  (SELECT last_value FROM token_ledger_id_seq)
"""


@pytest.mark.parametrize("access", ["open", "authenticated"])
@pytest.mark.few(access="authenticated")
@pytest.mark.server
def test_nobody_makes_money_where_privileges_were_lost_in_a_restore(
    new_database: Callable[..., URL], upgraded: URL, access: str
) -> None:
    """PUBLIC may execute every function there. Grants to the API roles on all functions are no better."""
    assert run("access", access, url=upgraded).status == 0
    execute(upgraded, f"{ROWS_OF_TWO_USERS}; {METERED_CALLS}")
    restored = new_database()
    dumped = subprocess.run(
        [program("pg_dump"), "--no-sync", "-x", "-O", libpq(upgraded)], check=True, capture_output=True, text=True
    ).stdout
    psql(restored, re.sub(r"(?m)^\\\\(un)?restrict.*\n|^SET transaction_timeout.*\n", "", dumped))
    opened = (
        "GRANT ALL ON ALL FUNCTIONS IN SCHEMA public, oblivion TO anon, authenticated;"
        " GRANT USAGE ON SCHEMA oblivion TO anon, authenticated"
    )
    before = query(restored, PURSES)
    for grants in ("", opened):
        execute(restored, grants or "SELECT 1")
        for role, function in itertools.product(("anon", "authenticated"), (*MONEY, *RETENTION * bool(grants))):
            with request(restored, role, signed_in("mine")) as connection, pytest.raises(DBAPIError) as refused:
                connection.exec_driver_sql(f"SELECT * FROM {function}", execution_options={"no_parameters": True})
            assert sqlstate(refused.value) == DENIED, function
            assert "Only service_role and the owner may do that" in str(refused.value), "the grant refuses it alone"
    if access == "authenticated":
        for role, function in itertools.product(("anon", "authenticated"), INTERNAL):
            with request(restored, role, signed_in("mine")) as connection, suppress(DBAPIError):
                rows = connection.exec_driver_sql(
                    f"SELECT * FROM {function}", execution_options={"no_parameters": True}
                ).all()
                assert not any(isinstance(value, int) and value > 10 for row in rows for value in row), (function, rows)
                connection.commit()
    assert query(restored, PURSES) == before
    with request(restored, "service_role") as connection:
        for function in MONEY:
            connection.exec_driver_sql(f"SELECT * FROM {function}", execution_options={"no_parameters": True})
