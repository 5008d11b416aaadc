"""`oblivion-schema verify` and `check --sql`: what they call right is so, and what they say mends what they name."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import pytest
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, NullPool, create_engine, text
from support import PROJECT, REVISIONS, dump, examples, execute, psql, run
from test_drift import FIRST_OF_EACH_KIND, MUTATIONS, Mutation

from oblivion_schema.deploy.upgrade import config
from oblivion_schema.drift.check import script
from oblivion_schema.drift.compare import find_drift
from oblivion_schema.tables.base import metadata
from oblivion_schema.verification.check import Status
from oblivion_schema.verification.checklist import verify
from oblivion_schema.verification.data import check_data
from oblivion_schema.verification.objects import check_objects

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

    from oblivion_schema.verification.check import Check


def checks(connection: Connection) -> list[Check]:
    return list(verify(connection, ScriptDirectory.from_config(config())))


def failed(connection: Connection) -> list[str]:
    return [str(check) for check in checks(connection) if check.failed]


@pytest.mark.server
def test_verify_passes_line_by_line_and_leaves_nothing(upgraded: URL) -> None:
    before = dump(upgraded, numbers=False)
    with create_engine(upgraded, poolclass=NullPool).connect() as connection:
        assert failed(connection) == []
        connection.commit()
    result = run("verify", url=upgraded)
    lines = result.out.splitlines()
    assert result.status == 0
    assert all(line.startswith("ok    ") for line in lines), result.out
    for subject in (
        "table user_accounts",
        "view active_calls",
        "index",
        "row level security",
        "policy",
        "everything is defined, granted and commented",
        "access open",
        "a call is started, billed and ended",
    ):
        assert any(line.startswith(f"ok    {subject}") for line in lines), subject
    assert dump(upgraded, numbers=False) == before


def test_verify_fails_on_an_empty_database(empty: URL) -> None:
    result = run("verify", url=empty)
    assert result.status == 1
    assert not any(line.startswith("ok") for line in result.out.splitlines())


def test_demo_accounts_may_be_left_out_or_deleted(empty: URL) -> None:
    assert run("-x", "demo=no", "upgrade", "head", url=empty).status == 0
    assert run("verify", url=empty).status == 0
    assert run("downgrade", "base", url=empty).status == 0
    assert run("upgrade", "head", url=empty).status == 0
    execute(empty, "DELETE FROM user_accounts WHERE user_id = 'developer'")
    assert run("verify", url=empty).status == 0


def objects(connection: Connection) -> list[tuple[str, str]]:
    """Every object that verify shall miss when it is gone: what drops it, and the line that says so."""
    listing = """
        SELECT format('DROP VIEW %I', relname), concat('FAIL  view ', relname) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
        UNION ALL
        SELECT format('ALTER VIEW %I SET (security_invoker = false)', relname), concat('FAIL  view ', relname)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'v'
        UNION ALL
        SELECT format('DROP TABLE %I CASCADE', relname), concat('FAIL  table ', relname) FROM pg_class
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
        UNION ALL
        SELECT format('ALTER TABLE %s DROP COLUMN %I CASCADE', attrelid::regclass, attname),
          concat('FAIL  table ', relname)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0
        UNION ALL
        SELECT format('DROP INDEX %I', indexname), format('FAIL  index %s.%s', tablename, indexname)
        FROM pg_indexes WHERE schemaname = 'public' AND indexname NOT LIKE '%_pkey'
        UNION ALL
        SELECT format('DROP POLICY %I ON %I', policyname, tablename),
          format('FAIL  policy %s.%s', tablename, policyname)
        FROM pg_policies WHERE schemaname = 'public'
        UNION ALL
        SELECT format('ALTER TABLE %I DISABLE ROW LEVEL SECURITY', relname),
          concat('FAIL  row level security of ', relname)
        FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
        UNION ALL
        SELECT format('DROP TRIGGER %I ON %s', tgname, tgrelid::regclass),
          format('FAIL  trigger %s.%s', tgrelid::regclass, tgname)
        FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', tgrelid::regclass, tgname),
          format('FAIL  trigger %s.%s', tgrelid::regclass, tgname)
        FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL
        SELECT format('DROP FUNCTION %s CASCADE', p.oid::regprocedure), concat('FAIL  function ', proname)
        FROM pg_proc AS p WHERE pronamespace = 'public'::regnamespace
        UNION ALL
        SELECT format('ALTER TABLE %s %s DROP CONSTRAINT %I CASCADE',
          CASE WHEN contype IN ('p', 'u') THEN 'ONLY' END, conrelid::regclass, conname),
          format('FAIL  constraint %s.%s', conrelid::regclass, conname)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f', 'p')
        UNION ALL
        SELECT format('ALTER TABLE %s ALTER %I DROP NOT NULL', attrelid::regclass, attname),
          concat('FAIL  table ', relname)
        FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND attnum > 0 AND attnotnull
          AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = attrelid AND indisprimary AND attnum = ANY (indkey))
        UNION ALL
        SELECT format('DROP %s IF EXISTS oblivion.%I CASCADE', kind, relname),
          format('FAIL  %s oblivion.%s', lower(kind), relname)
        FROM pg_class CROSS JOIN LATERAL (SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END) AS k (kind)
        WHERE relnamespace = 'oblivion'::regnamespace AND relkind IN ('r', 'v') AND relname <> 'alembic_version'
        UNION ALL
        SELECT format('DROP INDEX oblivion.%I', relname), format('FAIL  index %s.%s', indrelid::regclass, relname)
        FROM pg_index JOIN pg_class AS i ON i.oid = indexrelid
        WHERE relnamespace = 'oblivion'::regnamespace
          AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
        UNION ALL
        SELECT format('ALTER TABLE %s %s DROP CONSTRAINT %I CASCADE',
          CASE WHEN contype IN ('p', 'u') THEN 'ONLY' END, conrelid::regclass, conname),
          format('FAIL  constraint %s.%s', conrelid::regclass, conname)
        FROM pg_constraint WHERE connamespace = 'oblivion'::regnamespace AND contype IN ('c', 'f', 'p', 'u')
          AND conname <> 'alembic_version_pkc'
        UNION ALL
        SELECT format('DROP FUNCTION %s CASCADE', p.oid::regprocedure), concat('FAIL  function oblivion.', proname)
        FROM pg_proc AS p WHERE pronamespace = 'oblivion'::regnamespace
        UNION ALL
        VALUES
          ('DELETE FROM token_rates WHERE mode = ''video''', 'FAIL  token rates: video, video over TURN'),
          ('UPDATE token_rates SET tokens_per_minute = 0', 'FAIL  token rates')
    """
    return [(sql, line) for sql, line in connection.execute(text(listing))]


# What goes alone: all of such a kind can go at once, and then nothing else may be named.
ALONE = re.compile(r"DROP (POLICY|INDEX|TRIGGER) |ALTER (TABLE|VIEW) \S+ (DISABLE|SET) ")
# What takes something of another kind with it, and nothing of its own: one of each line can go at once.
TOGETHER = re.compile(r"DROP (VIEW|TABLE) |ALTER TABLE (ONLY )?\S+ (DROP (COLUMN|CONSTRAINT)|ALTER \S+ DROP NOT NULL)")


def taken(cases: list[tuple[str, str]]) -> Iterator[tuple[bool, list[tuple[str, str]]]]:
    """What is tried at once, and whether nothing else may be named then."""
    alone: dict[str, list[tuple[str, str]]] = defaultdict(list)
    together: dict[tuple[object, ...], list[tuple[str, str]]] = defaultdict(list)
    seen: Counter[tuple[object, ...]] = Counter()
    singly = []
    for sql, line in cases:
        if match := ALONE.match(sql):
            kind = line.partition(".")[0].rpartition(" ")[0] if match[1] else line.split()[1]
            alone[f"{match[1]} {match[3]} {kind}"].append((sql, line))
        elif match := TOGETHER.match(sql):
            kinds = (match[1], match[2], (match[3] or "").split(" ")[0], match[4], "oblivion." in line)
            seen[*kinds, line] += 1
            together[*kinds, seen[*kinds, line]].append((sql, line))
        else:
            singly.append([(sql, line)])
    yield from ((True, its) for its in alone.values())
    yield from ((False, its) for its in together.values())
    yield from ((False, its) for its in singly[:: examples(1, quick=6)])


def checked(connection: Connection) -> Iterator[Check]:
    """What names one object, or one row; the other checks would name it again, and take longer."""
    connection.execute(text("SET LOCAL search_path = public"))
    yield from check_objects(connection)
    yield from check_data(connection)


@pytest.mark.full
def test_verify_names_each_object_that_is_gone(engine: Engine) -> None:
    with engine.connect() as connection:
        cases = objects(connection)
        assert len(cases) > 200
        for nothing_else, its in taken(cases):
            with connection.begin_nested() as savepoint:
                connection.execute(text("; ".join(sql for sql, _ in its)))
                said = [str(check) for check in checked(connection) if check.failed]
                if nothing_else:
                    found = [re.split(r"(?<!FAIL)[:,] ", line)[0] for line in said]
                    assert sorted(found) == sorted(line for _, line in its), its
                for sql, line in its:
                    assert any(found.startswith(line) for found in said), sql
                savepoint.rollback()
        assert failed(connection) == []


def said_of(connection: Connection, subject: str) -> str:
    """What the line of that subject says."""
    [line] = [str(check) for check in checks(connection) if check.subject == subject]
    return line


def test_verify_names_the_first_balances_that_are_not_the_sum_of_their_ledger(engine: Engine) -> None:
    subject = "every balance is the sum of its ledger"
    with engine.connect() as connection:
        connection.execute(
            text("INSERT INTO user_accounts (user_id) SELECT 'user ' || n FROM generate_series(1, 9) AS n")
        )
        connection.execute(text("UPDATE user_accounts SET tokens_remaining = 7 WHERE user_id LIKE 'user %'"))
        assert said_of(connection, subject) == f"ok    {subject}"
        for past_the_triggers, named in (
            (
                (
                    "ALTER TABLE user_accounts DISABLE TRIGGER write_ledger;"
                    " UPDATE user_accounts SET tokens_remaining = 9 WHERE user_id = 'user 3'"
                ),
                "1 balances are wrong (user 3: drift 2, gaps 0)",
            ),
            (
                "DELETE FROM token_ledger WHERE user_id = 'user 4' AND kind = 'opening'",
                "1 balances are wrong (user 4: drift 100, gaps 1)",
            ),
            (
                # The sum is right.
                (
                    "UPDATE token_ledger SET tokens = 0, balance = 0 WHERE user_id = 'user 5' AND kind = 'opening';"
                    " UPDATE token_ledger SET tokens = 7, balance = 8 WHERE user_id = 'user 5' AND kind = 'direct'"
                ),
                "1 balances are wrong (user 5: drift 0, gaps 1)",
            ),
            (
                (
                    "ALTER TABLE user_accounts DISABLE TRIGGER close_ledger; DELETE FROM user_accounts"
                    " WHERE user_id = 'user 6'"
                ),
                "1 balances are wrong (user 6: drift -7, gaps 0)",
            ),
            (
                "DELETE FROM token_ledger WHERE user_id LIKE 'user %'",
                (
                    "9 balances are wrong (user 1: drift 7, gaps 0, user 2: drift 7, gaps 0, user 3: drift 7, gaps 0,"
                    " user 4: drift 7, gaps 0, user 5: drift 7, gaps 0 and 4 more)"
                ),
            ),
        ):
            with connection.begin_nested() as savepoint:
                connection.execute(text(past_the_triggers))
                says = (
                    f"FAIL  {subject}: {named}: something bypassed the triggers; oblivion.balance_audit has all of"
                    " them, SELECT oblivion.rebuild_ledger() notes the balances as they are"
                )
                assert said_of(connection, subject) == says
                savepoint.rollback()


def test_ids_cannot_write_to_the_terminal(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(text(r"INSERT INTO user_accounts (user_id) VALUES (E'\x1b[2Jada\n\u202e')"))
        connection.execute(text("ALTER TABLE user_accounts DISABLE TRIGGER write_ledger"))
        connection.execute(text("UPDATE user_accounts SET tokens_remaining = 102 WHERE user_id LIKE '%ada%'"))
        said = said_of(connection, "every balance is the sum of its ledger")
    assert r"(\x1b[2Jada \u202e: drift 2, gaps 0)" in said, ascii(said)


def test_verify_counts_calls_and_incidents_that_wait_to_be_settled(engine: Engine) -> None:
    subject = "every call that has ended is billed"
    calls = "UPDATE call_sessions SET start_time = start_time - interval '1 year', {}"
    with engine.connect() as connection:
        for key in ("one", "two"):
            connection.execute(text(f"SELECT start_call('demo_user', 'r', 'video', true, '{key}')"))
        assert said_of(connection, subject) == f"ok    {subject}", "they go on"
        # A year over TURN costs more than can be said.
        connection.execute(text(calls.format("end_time = NULL")))
        assert connection.scalar(text("SELECT string_agg(status, ' ') FROM call_sessions, tick_call(id)")) == (
            "unsettled unsettled"
        )
        assert said_of(connection, subject) == f"ok    {subject}", "their next ticks may be billed"
        connection.execute(
            text("UPDATE oblivion.billing_incidents SET first_at = first_at - interval '61 minutes' WHERE id % 2 = 0")
        )
        waits = (
            "{} ended calls are not billed, {} incidents are open for more than an hour: run oblivion-schema"
            " settle; oblivion.billing_incidents has the reasons"
        )
        assert said_of(connection, subject) == f"FAIL  {subject}: {waits.format(0, 1)}"
        connection.execute(text("SELECT end_call(id) FROM call_sessions"))
        assert said_of(connection, subject) == f"FAIL  {subject}: {waits.format(2, 1)}"
        connection.execute(text("UPDATE call_sessions SET start_time = end_time - interval '61 seconds'"))
        assert connection.scalar(text("SELECT sum(charged) FROM settle_calls()")) == 24
        assert said_of(connection, subject) == f"ok    {subject}"


def test_verify_names_calls_whose_usage_somebody_changed(engine: Engine) -> None:
    subject = "every token that a call cost is in token_usage, or in its meter"
    with engine.connect() as connection:
        calls = [
            connection.scalar(text(f"SELECT session_id FROM start_call('demo_user', 'r', 'video', {turn})"))
            for turn in (False, True, False)
        ]
        for function in ("tick_call('{0}')", "set_call_turn('{0}', false)", "tick_call('{1}')", "end_call('{2}')"):
            connection.execute(text(f"SELECT {function.format(*calls)}"))
        assert said_of(connection, subject) == f"ok    {subject}"
        connection.execute(text("UPDATE token_usage SET tokens_used = 9"))
        assert said_of(connection, subject) == (
            f"FAIL  {subject}: 1 calls have other tokens there ({calls[2]}: 9 of 2): rows of token_usage"
            " were written or deleted past the engine; no balance depends on them"
        )
        connection.execute(text("DELETE FROM user_accounts WHERE user_id = 'demo_user'"))
        assert said_of(connection, subject) == f"ok    {subject}", "its usage went with the account"


def test_role_that_may_only_read_is_told_what_it_could_not_try(upgraded: URL) -> None:
    role = f"{upgraded.database}_reader"
    execute(upgraded, f"CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        result = run("verify", url=upgraded.set(username=role))
        lines = result.out.splitlines()
        assert result.status == 0
        skipped = [re.split(r": | \d+ ", line)[0].removeprefix("skip  ") for line in lines if line.startswith("skip")]
        assert skipped[:2] == [
            f"revision {REVISIONS[-1]}",
            "everything is defined, granted and commented as the code has it",
        ]
        assert skipped[-1] == "what pages and functions do"
        hidden = "row level security hides rows of token_ledger, token_usage, user_accounts from this role"
        assert f"skip  every balance is the sum of its ledger: {hidden}" in lines
        assert {line.split()[0] for line in lines} == {"ok", "skip"}
    finally:
        execute(upgraded, f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.parametrize("revision", REVISIONS[:-1])
def test_older_revision_is_named_and_what_it_has_is_checked(empty: URL, revision: str) -> None:
    assert run("upgrade", revision, url=empty).status == 0
    result = run("verify", url=empty)
    lines = result.out.splitlines()
    assert result.status == 1
    assert [line for line in lines if line.startswith("FAIL")] == [
        f"FAIL  revision {REVISIONS[-1]}: the database is at {revision}: upgrade head"
    ]
    assert any(line.startswith("ok    token rates") for line in lines) == (revision >= "003")
    assert any(line.startswith("ok    a call is started, billed and ended") for line in lines) == (revision >= "004")


def test_read_only_session_says_what_it_could_not_try(upgraded: URL) -> None:
    execute(upgraded, f'ALTER DATABASE "{upgraded.database}" SET default_transaction_read_only = on')
    result = run("verify", url=upgraded)
    assert result.status == 0
    skipped = [line for line in result.out.splitlines() if not line.startswith("ok    ")]
    assert [line.partition(":")[0] for line in skipped] == [
        "skip  everything is defined, granted and commented as the code has it",
        "skip  access open",
        "skip  pages trusted",
        "skip  a call is started, billed and ended, and a credit is added once (rolled back)",
    ]
    assert all("read-only" in line for line in skipped)


def broken(url: URL, sql: str) -> list[str]:
    """What verify says after `sql`."""
    with create_engine(url, poolclass=NullPool).connect() as connection:
        connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
        return failed(connection)


AUDIT = """
    CREATE TABLE audit_log (what text);
    GRANT INSERT ON audit_log TO PUBLIC;
    CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO audit_log VALUES (TG_OP);
      RETURN NEW;
    END
    $$;
"""


def test_foreign_trigger_that_fails_inside_the_engine_is_named_with_its_cure(upgraded: URL) -> None:
    trigger = "CREATE TRIGGER audit AFTER INSERT OR UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION audit()"
    for table in ("call_sessions", "user_accounts", "token_usage", "token_ledger", "oblivion.call_meters"):
        on = table if "." in table else f"public.{table}"
        made = AUDIT + trigger.format(table)
        found = broken(upgraded, made)
        told = [line for line in found if line.startswith("FAIL  a call is started") and "audit_log" in line]
        assert told, (on, found)
        assert told[0].endswith(f"look at trigger audit on {on}")
        with create_engine(upgraded, poolclass=NullPool).connect() as connection:
            connection.exec_driver_sql(made)
            [note] = [str(check) for check in checks(connection) if check.subject == f"trigger audit on {on}"]
            cure = note.rpartition(": ")[2]
            assert (note[:6], cure) == ("note  ", "ALTER FUNCTION public.audit() SET search_path = public")
            connection.exec_driver_sql(cure)
            assert failed(connection) == []


def test_foreign_trigger_that_takes_tokens_is_seen(upgraded: URL) -> None:
    [line] = [
        line
        for line in broken(
            upgraded,
            """
            CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
              UPDATE public.user_accounts SET tokens_remaining = tokens_remaining - NEW.tokens_used
              WHERE user_id = NEW.user_id;
              RETURN NEW;
            END
            $$;
            CREATE TRIGGER take BEFORE INSERT ON token_usage FOR EACH ROW EXECUTE FUNCTION take()
            """,
        )
        if "a call is started" in line
    ]
    assert "balance 997, not 1001" in line
    assert line.endswith("look at trigger take on public.token_usage")


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("ALTER TABLE call_sessions ADD must text NOT NULL", 'null value in column "must"'),
        ("ALTER TABLE call_sessions ADD CHECK (room_id = 'x')", "violates check constraint"),
        ("DELETE FROM token_rates", "token rates"),
        ("DELETE FROM oblivion.alembic_version", f"revision {REVISIONS[-1]}: the database is at none"),
        ("DROP SCHEMA oblivion CASCADE", f"revision {REVISIONS[-1]}: the database is at none"),
        ("CREATE RULE stop AS ON INSERT TO token_usage DO INSTEAD NOTHING", "token_usage 0, not 4"),
        ("ALTER FUNCTION oblivion.tick_call SECURITY INVOKER", "function oblivion.tick_call"),
        ("DROP TRIGGER bill_page_call ON call_sessions", "trigger call_sessions.bill_page_call"),
        ("ALTER TABLE user_accounts ALTER tokens_remaining SET DEFAULT 7", "default public.user_accounts"),
        ("COMMENT ON TABLE user_accounts IS 'mine'", "comment"),
    ],
)
def test_what_is_broken_is_named(upgraded: URL, sql: str, said: str) -> None:
    assert any(said in line for line in broken(upgraded, sql)), broken(upgraded, sql)


STRANGERS = """
    CREATE OR REPLACE FUNCTION oblivion.refuse_pages() RETURNS void LANGUAGE sql AS 'SELECT';
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public, oblivion TO PUBLIC
"""


@pytest.mark.parametrize("mode", ["open", "authenticated"])
def test_money_that_strangers_make_is_seen(upgraded: URL, mode: str) -> None:
    assert run("access", mode, url=upgraded).status == 0
    [line] = [line for line in broken(upgraded, STRANGERS) if line.startswith("FAIL  access")]
    money = ("top_up", "refund_call", "reap_stale_calls", "settle_calls", "burn_calls")
    assert line.startswith(f"FAIL  access {mode}: "), line
    assert ", ".join(f"a visitor may call {name}()" for name in money) in line
    assert f"oblivion-schema access {mode}" in line


@pytest.mark.parametrize("table", ["user_accounts", "call_sessions", "token_usage", "token_ledger", "user_presence"])
def test_rows_that_strangers_reach_in_the_authenticated_mode_are_seen(upgraded: URL, table: str) -> None:
    assert run("access", "authenticated", url=upgraded).status == 0
    opened = f"""
        GRANT SELECT ON {table} TO anon;
        ALTER POLICY {table}_select ON {table} USING (true)
    """
    said = broken(upgraded, opened)
    [line] = [line for line in said if line.startswith("FAIL  access")]
    assert f"a visitor reads {table}" in line
    assert f"another signed-in user reads {table}" in line
    written = f"""
        GRANT ALL ON {table} TO authenticated;
        ALTER POLICY {table}_select ON {table} USING (true);
        ALTER POLICY {table}_update ON {table} USING (true) WITH CHECK (true);
        ALTER POLICY {table}_delete ON {table} USING (true)
    """
    [line] = [line for line in broken(upgraded, written) if line.startswith("FAIL  access")]
    assert f"another signed-in user reads {table}" in line
    assert failed_in(upgraded) == []


def failed_in(url: URL) -> list[str]:
    return broken(url, "SELECT")


def test_page_that_is_not_billed_as_its_mode_says_is_seen(open_to_both: URL) -> None:
    assert run("pages", "metered", url=open_to_both).status == 0
    assert failed_in(open_to_both) == []
    for sql in (
        "ALTER TABLE call_sessions DISABLE TRIGGER meter_page_call",
        "ALTER TABLE call_sessions DISABLE TRIGGER bill_page_call",
        "ALTER TABLE user_accounts DISABLE TRIGGER update_user_accounts_updated_at",
        "ALTER TABLE token_usage DISABLE TRIGGER guard_usage",
    ):
        assert any(line.startswith("FAIL  pages metered") for line in broken(open_to_both, sql)), sql


def test_what_moves_and_restores_leave_behind_is_named_with_its_cure(upgraded: URL) -> None:
    execute(upgraded, "SELECT start_call('demo_user', 'r', 'video', false, 'k')")
    past = "SET LOCAL session_replication_role = replica;"
    cases = {
        "SELECT setval('token_ledger_id_seq', 1)": "every identity is ahead",
        "CREATE TABLE t (id integer); INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        " VALUES ('gone', 's', 1, 'video', false)": "every row that another one names is there",
        "ALTER TABLE user_accounts REPLICA IDENTITY NOTHING; CREATE PUBLICATION p FOR TABLE user_accounts": (
            "every published table can be updated"
        ),
        "INSERT INTO oblivion.usage_deltas (sessions, tokens, seconds, has_lost_rows)"
        " SELECT 0, 0, 0, false FROM generate_series(1, 50001)": "changes are folded into the roll-ups",
    }
    for sql, subject in cases.items():
        with create_engine(upgraded, poolclass=NullPool).connect() as connection:
            connection.exec_driver_sql(f"{past}{sql}")
            connection.exec_driver_sql("SET LOCAL session_replication_role = origin")
            [said] = [check.says for check in checks(connection) if check.subject.startswith(subject)]
            cure = said.rpartition(": ")[2].replace("insert those, or ", "").removesuffix(" in READ COMMITTED")
            assert cure.split()[0] in {"SELECT", "DELETE", "ALTER"}, said
            connection.exec_driver_sql(cure)
            assert not [c.says for c in checks(connection) if c.failed and c.subject.startswith(subject)], cure


# One of each kind, and all by which access may be lost.
BY_HAND = [
    mutation
    for mutation in MUTATIONS
    if not (mutation.setup or mutation.once)
    and (str(mutation) in FIRST_OF_EACH_KIND or mutation.kind in {"policy", "grant", "trigger state"})
    and mutation.kind != "schema"
]


@pytest.mark.parametrize("mutation", BY_HAND, ids=[f"{m.change}-{m.kind}".replace(" ", "-") for m in BY_HAND])
@pytest.mark.few(mutation=FIRST_OF_EACH_KIND[::4])
@pytest.mark.full
def test_whatever_check_sees_verify_tells_and_the_script_mends(engine: Engine, mutation: Mutation) -> None:
    revisions = ScriptDirectory.from_config(config())
    with engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL search_path = public")
        connection.exec_driver_sql(mutation.sql, execution_options={"no_parameters": True})
        told = find_drift(connection, MigrationContext.configure(connection), metadata, revisions).differences
        said = [str(check) for check in checks(connection) if check.status is not Status.PASSED]
        # A table, view or function of somebody else is no difference, nor is a rate that he adds.
        assert told or mutation.change == "add"
        assert not told or any(mutation.name.partition("(")[0].split(".")[-1] in line for line in said), said
        for _ in range(2):  # what is made from PostgreSQL's print may be printed differently, once
            drift = find_drift(connection, MigrationContext.configure(connection), metadata, revisions)
            lines = list(script(drift))
            if "BEGIN;" in lines:
                sql = "\n".join(line for line in lines if line not in {"BEGIN;", "COMMIT;"})
                connection.exec_driver_sql(sql, execution_options={"no_parameters": True})
        assert [found for found in drift.differences if found.change != "unknown"] == []


def test_docs_show_what_verify_prints(upgraded: URL) -> None:
    shown = (PROJECT / "docs" / "verify.md").read_text().partition("$ oblivion-schema verify\n")[2].partition("```")[0]
    printed = run("verify", url=upgraded).out.splitlines()
    assert len(shown.splitlines()) > 10
    assert all(line in {"...", *printed} for line in shown.splitlines())


def test_row_without_a_mode_stops_no_fold(upgraded: URL) -> None:
    execute(
        upgraded,
        """
        ALTER TABLE token_usage ALTER used_turn DROP NOT NULL;
        INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)
        VALUES ('demo_user', 's', 1, 'video', NULL), ('demo_user', 's', 2, 'video', false)
        """,
    )
    execute(upgraded, "SELECT oblivion.fold_usage(100), oblivion.rebuild_rollups()")
    said = run("verify", url=upgraded).out
    assert "FAIL  table token_usage, 8 columns: takes NULL in used_turn" in said
    execute(upgraded, "DELETE FROM token_usage WHERE used_turn IS NULL")
    psql(upgraded, run("check", "--sql", url=upgraded).out)
    execute(upgraded, "SELECT oblivion.fold_usage(100), oblivion.rebuild_rollups()")
    assert run("verify", url=upgraded).status == 0


def test_foreign_key_that_nothing_checks_is_seen(upgraded: URL) -> None:
    execute(upgraded, "ALTER TABLE user_accounts DISABLE TRIGGER ALL")
    psql(upgraded, run("check", "--sql", url=upgraded).out)
    [line] = [line for line in run("verify", url=upgraded).out.splitlines() if line.startswith("FAIL")]
    cure = line.rpartition(", ")[2]
    assert cure == "ALTER TABLE public.user_accounts ENABLE TRIGGER ALL"
    execute(upgraded, cure)
    assert run("verify", url=upgraded).status == 0


def test_script_takes_back_what_was_granted_and_no_more(upgraded: URL) -> None:
    assert run("access", "authenticated", url=upgraded).status == 0
    execute(upgraded, "GRANT ALL ON ALL TABLES IN SCHEMA public TO anon, authenticated")
    psql(upgraded, run("-q", "check", "--sql", url=upgraded).out)
    assert run("check", url=upgraded).status == 0
    assert run("verify", url=upgraded).status == 0


@pytest.mark.parametrize("given", ["before", "after"])
def test_default_privileges_are_no_part_of_ours(empty: URL, given: str) -> None:
    defaults = "; ".join(
        f"ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO anon, PUBLIC" for kind in ("TABLES", "SEQUENCES", "FUNCTIONS")
    )
    try:
        if given == "before":
            execute(empty, defaults)
        assert run("upgrade", "head", url=empty).status == 0
        if given == "after":
            execute(empty, defaults)
        assert run("check", url=empty).status == 0
        assert run("verify", url=empty).status == 0
    finally:
        execute(empty, defaults.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
