"""`oblivion-schema inspect` says beforehand what the upgrade then notes, and changes nothing."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from alembic.script import ScriptDirectory
from legacy_states import STATES, State
from sqlalchemy import NullPool, create_engine, make_url, text
from support import PROJECT, REVISIONS, dump, execute, query, run

from oblivion_schema.adoption.inspection import inspect
from oblivion_schema.adoption.made import inspect_names
from oblivion_schema.adoption.report import Inspection
from oblivion_schema.deploy import upgrade as migrate
from oblivion_schema.operations import requests_of
from oblivion_schema.server.database import Database

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import URL

DONE = ("table", "renamed", "filled", "row", "not valid", "forced")
OF_THEIRS = {
    *DONE, "log", "added", "default", "fillfactor", "added rule", "drop policy", "drop index", "remade", "replace view",
    "replace function", "grants", "publish", "demo",
}  # fmt: skip
"""What is told of the upgrade: nothing that it makes of its own."""
FULL = next(state for state in STATES if state.name == "presence fixed and safe, billing")
FIRST = next(state for state in STATES if state.name == "calls only, billing")


def inspected(url: URL) -> Inspection:
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        found = inspect(connection, ScriptDirectory.from_config(migrate.config()))
        assert connection.scalar(text("SHOW transaction_read_only")) == "on"
        modes = connection.scalars(text("SELECT DISTINCT mode FROM pg_locks WHERE pid = pg_backend_pid()"))
        assert set(modes) <= {"AccessShareLock", "ExclusiveLock"}  # the second on the own transaction's number
        assert connection.scalar(text("SELECT pg_current_xact_id_if_assigned()")) is None
        return found


def noted(url: URL) -> tuple[Counter[tuple[str, str]], dict[str, int], list[tuple[str, str]]]:
    """What the log says was done, of how many rows, and was left."""
    log = [
        (str(kind), str(name), str(why))
        for kind, name, why in query(url, "SELECT kind, name, why FROM oblivion.adoption_log ORDER BY 1, 2")
    ]
    done = Counter((kind, name) for kind, name, _ in log if kind in DONE)
    filled = {name: int(str(re.findall(r"\d+", why)[0])) for kind, name, why in log if kind == "filled"}
    return done, filled, [(kind, name) for kind, name, _ in log if kind not in DONE]


def agrees(url: URL) -> Inspection:
    """Inspect, upgrade, and compare what was said with what was noted."""
    found = inspected(url)
    upgraded = run("upgrade", "head", url=url)
    assert (upgraded.status == 0) == (not found.obstacles), (found.obstacles, upgraded)
    if upgraded.status == 0:
        done, filled, left = noted(url)
        said = [finding for finding in found.will if finding.kind in DONE]
        assert {(finding.kind, finding.name) for finding in said} == set(done)
        assert {finding.name: finding.rows for finding in said if finding.kind == "filled"} == filled
        assert sum(finding.rows for finding in said if finding.kind == "row") == sum(
            count for (kind, _), count in done.items() if kind == "row"
        )
        for finding in said:
            if finding.kind == "not valid":
                verified = run("verify", url=url).out
                assert f"{finding.rows} old rows break it" in verified, verified
        names = {(finding.kind, finding.name) for finding in found.stays}
        beside = {("table", "public.call_notes"), ("table", "public.invoices"), ("view", "public.calls_now")}
        assert set(left) <= names
        for kind, name in names - set(left) - beside:
            assert kind == "demo accounts" or (kind == "grant" and "table" not in name), (kind, name)
    return found


@pytest.mark.parametrize("state", STATES, ids=str)
@pytest.mark.server
def test_what_is_said_is_what_the_upgrade_does(new_sort: Callable[[str], URL], state: State) -> None:
    url = new_sort("supabase-old")
    if state.ran:
        execute(url, state.script(rows=True, by_hand=True))
    found = agrees(url)
    assert found.obstacles == []
    assert {finding.kind for finding in found.will} <= OF_THEIRS
    if not state.ran:
        assert {finding.kind for finding in found.will} == {"demo"}
    again = run("inspect", url=url)
    assert (again.status, again.out.splitlines()[:2]) == (
        0,
        [f"State: ours, at revision {REVISIONS[-1]}.", "Upgrades pending: none."],
    )


def test_nothing_is_changed(new_database: Callable[..., URL]) -> None:
    url = new_database()
    execute(url, FIRST.script(rows=True, by_hand=True))
    before = dump(url)
    said = run("inspect", url=url)
    assert (said.status, said.err) == (0, "")
    assert said.out.splitlines()[0] == "State: made by hand: calls, presence (first script), billing with its trigger."
    lines = said.out.splitlines()
    assert len(set(lines)) == len(lines)
    for line in (
        "  take over public.call_sessions, public.user_presence, public.user_accounts, public.token_usage",
        "  rename public.user_presence.user_id to host_id",
        "  fill NULLs in 1 row of public.token_usage: timestamp 1",
        "  column public.call_sessions.rating, public.user_accounts.role",
        "  table public.call_notes, public.invoices",
    ):
        assert line in lines, said.out
    assert "reader's rights: GRANT SELECT ON token_usage, user_accounts TO pg_monitor\n" in said.out
    assert '  policy "Support reads calls" on public.call_sessions is permissive: in the authenticated mode' in said.out
    assert dump(url) == before


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("nothing", "empty of what is ours"),
        ("calls only", "made by hand: calls, presence (first script)"),
        ("presence fixed", "made by hand: calls, presence (fixed script)"),
        ("presence safe only", "made by hand: calls, presence (first and safe scripts)"),
        ("presence fixed and safe", "made by hand: calls, presence (fixed and safe scripts)"),
        ("billing alone", "made by hand: billing without its trigger"),
        (
            "billing first",
            "made by hand: calls, presence (first script), billing without its trigger",
        ),
        (
            "billing twice",
            "made by hand: calls, presence (fixed script), billing with its trigger",
        ),
    ],
)
@pytest.mark.few(state=("calls only", "presence fixed and safe", "billing twice"))
def test_state_says_which_scripts_ran(empty: URL, state: str, says: str) -> None:
    script = next(found for found in STATES if found.name == state).script()
    if script:
        execute(empty, script)
    assert inspected(empty).state == says


def test_upgrade_half_way_is_inspected_as_far_as_it_is_left(empty: URL) -> None:
    execute(empty, next(state for state in STATES if state.name == "calls only").script(rows=True))
    assert run("upgrade", "001", url=empty).status == 0
    found = inspected(empty)
    assert found.state == "ours, at revision 001"
    assert found.pending[:2] == ("002 (Host presence)", "003 (Token billing)")
    assert [line[:3] for line in found.pending] == REVISIONS[1:]
    assert [finding.name for finding in found.will if finding.kind == "table"] == ["public.user_presence"]
    assert [finding.rows for finding in found.will if finding.kind == "row"] == [4]
    agrees_from = query(empty, "SELECT count(*) FROM oblivion.adoption_log")
    assert run("upgrade", "head", url=empty).status == 0
    assert query(empty, "SELECT count(*) FROM oblivion.adoption_log WHERE kind = 'row'") == [(4,)] != agrees_from


def test_what_was_adopted_and_given_back_is_inspected_anew(empty: URL) -> None:
    execute(empty, FIRST.script(rows=True, by_hand=True))
    assert run("upgrade", "head", url=empty).status == 0
    assert run("downgrade", "base", url=empty).status == 0
    found = inspected(empty)
    assert found.state == "made by hand: calls, presence (fixed and safe scripts), billing with its trigger"
    assert {finding.kind for finding in found.will} & {"log", "table", "row", "filled"} == {"log", "table"}
    assert ("table", "public.adoption_log") not in {(finding.kind, finding.name) for finding in found.stays}
    assert run("upgrade", "head", url=empty).status == 0
    _, filled, left = noted(empty)
    assert filled == {}
    assert set(left) <= {(finding.kind, finding.name) for finding in found.stays}


def test_documentation_shows_what_is_printed(empty: URL, caplog: pytest.LogCaptureFixture) -> None:
    execute(empty, FIRST.script(rows=True) + (PROJECT / "tests" / "legacy" / "by_hand_docs.sql").read_text())
    blocks = re.findall(
        r"^```console\n\$ oblivion-schema (.*?)\n(.*?)^```$",
        (PROJECT / "docs" / "adoption.md").read_text(),
        flags=re.MULTILINE | re.DOTALL,
    )
    printed = dict(blocks)
    assert run("inspect", url=empty).out == printed["inspect"]
    assert run("prepare", url=empty).out == printed["prepare"]
    assert run("upgrade", "head", url=empty).status == 0
    for line in printed["upgrade head"].splitlines():
        assert line.partition("] ")[2] in caplog.text
    for line in printed["verify"].splitlines():
        assert line in {"...", *run("verify", url=empty).out.splitlines()}


def test_revision_that_is_not_known_is_an_obstacle(upgraded: URL) -> None:
    execute(upgraded, "UPDATE oblivion.alembic_version SET version_num = '999'")
    result = run("inspect", url=upgraded)
    assert (result.status, result.out.splitlines()[0]) == (
        1,
        "State: at revision 999, which this version of oblivion_schema does not have.",
    )


@pytest.mark.parametrize("part", ["public alone", "no rows"])
def test_copy_that_is_not_whole_is_told_with_the_way_on(upgraded: URL, part: str) -> None:
    execute(upgraded, "DELETE FROM oblivion.alembic_version")
    if part == "public alone":
        execute(upgraded, "DROP SCHEMA oblivion CASCADE")
    found = inspected(upgraded)
    assert found.state.startswith("tables of ours without a revision")
    assert found.will == []
    [missing] = found.obstacles
    assert ("schema oblivion is not" in missing.says) == (part == "public alone")
    assert "docs/operations.md, Rows alone" in missing.says
    before = dump(upgraded)
    assert run("upgrade", "head", url=upgraded).error == f"FAILED: {missing.says}. Nothing was changed."
    assert run("-q", "inspect", url=upgraded).out == f"{missing}\n"
    assert dump(upgraded) == before
    if part == "no rows":
        assert run("stamp", "head", url=upgraded).status == 0
        assert run("check", url=upgraded).status == 0


def test_table_of_another_role_is_an_obstacle(new_database: Callable[..., URL], server: URL) -> None:
    url = new_database(owner=True)
    execute(server.set(database=url.database), FULL.script(rows=True))
    result = run("inspect", url=url)
    assert result.status == 1
    assert "  public.token_usage cannot be taken over: it belongs to postgres, who has to run this\n" in result.out
    assert "  view public.active_calls belongs to postgres, who has to run this\n" in result.out
    assert "function public.update_updated_at_column() belongs to postgres, who has to run this" in result.out
    assert run("upgrade", "head", url=url).status == 1


def test_reader_is_told_what_may_not_be_read(empty: URL) -> None:
    execute(empty, FULL.script(rows=True))
    role = f"{empty.database}_reader"
    execute(empty, f"CREATE ROLE {role} LOGIN; GRANT SELECT ON call_sessions TO {role}")
    try:
        result = run("inspect", url=empty.set(username=role))
        assert (result.status, result.err) == (1, "")
        for line in (
            "this role may not create schemas",
            "this role may not create objects in schema public",
            "public.token_usage cannot be taken over: it belongs to postgres, who has to run this",
        ):
            assert line in result.out, result.out
    finally:
        execute(empty, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_reader_of_an_upgraded_database_is_told_so(upgraded: URL) -> None:
    role = f"{upgraded.database}_reader"
    execute(upgraded, f"CREATE ROLE {role} LOGIN")
    try:
        result = run("inspect", url=upgraded.set(username=role))
        assert result.status == 1
        assert "may not read oblivion.alembic_version" in result.out
    finally:
        execute(upgraded, f"DROP ROLE {role}")


def test_holder_of_a_lock_and_a_long_lock_and_a_pooler_are_told(empty: URL) -> None:
    execute(empty, FULL.script(rows=True))
    execute(empty, "UPDATE pg_class SET reltuples = 10000000 WHERE relname = 'token_usage'")
    engine = create_engine(empty, poolclass=NullPool, connect_args={"application_name": "billing page"})
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM user_accounts"))
        result = run("inspect", url=empty)
    assert result.status == 0
    assert "  public.user_accounts is held by process" in result.out
    assert "(billing page, AccessShareLock)" in result.out
    assert re.search(
        r"  the upgrade locks these tables for about [\d.]+ s \(NULLs 2.0 s, indexes 24.0 s\):"
        r" run oblivion-schema prepare first, which does 26.0 s of that while clients go on\n",
        result.out,
    ), result.out
    assert run("prepare", url=empty).status == 0
    assert "prepare first" not in run("inspect", url=empty).out
    assert Database(make_url("postgresql://u@h:6543/d"), "test").is_behind_transaction_pooler


def test_upgrade_of_ours_tells_its_time_alone(upgraded: URL) -> None:
    assert run("downgrade", "003", url=upgraded).status == 0
    pending = ", ".join(inspected(upgraded).pending)
    assert pending.startswith("004 (The token engine), 005 (Reports that stay fast)")
    pending = f"Upgrades pending: {pending}; one transaction applies them all.\nModes: access open, pages trusted.\n"
    assert run("inspect", url=upgraded).out == f"State: ours, at revision 003.\n{pending}"
    execute(upgraded, "UPDATE pg_class SET reltuples = 1000000 WHERE relname = 'token_usage'")
    # Of what is ours already nothing can be prepared.
    assert run("inspect", url=upgraded).out == (
        f"State: ours, at revision 003.\n{pending}Mind that\n"
        "  the upgrade locks these tables for about 2.4 s (indexes 2.4 s)\n"
    )
    assert run("prepare", url=upgraded).out == "Nothing to prepare.\n"


def test_what_was_taken_over_before_is_told_apart_from_what_is_ours(empty: URL) -> None:
    execute(empty, FULL.script(rows=True))
    assert run("upgrade", "003", url=empty).status == 0
    found = inspected(empty)
    assert {(finding.kind, finding.name) for finding in found.will} == {
        ("fillfactor", "public.user_accounts"),
        ("fillfactor", "public.user_presence"),
        ("drop index", "idx_token_usage_billing"),
        ("drop index", "idx_token_usage_session_id"),
    }
    assert [(finding.kind, finding.name) for finding in found.warnings] == [("pages", "token_usage")]
    assert found.obstacles == []


@pytest.mark.parametrize("applied", [True, False])
def test_function_that_a_revision_replaces_is_told_unless_an_applied_one_made_it(
    upgraded: URL, *, applied: bool
) -> None:
    revisions = ScriptDirectory.from_config(migrate.config())
    requests = requests_of([revisions.get_revision("001")])
    found = Inspection()
    with create_engine(upgraded, poolclass=NullPool).connect() as connection:
        inspect_names(connection, found, requests, requests if applied else [])
    told = [] if applied else [("replace function", "public.update_updated_at_column()")]
    assert [(finding.kind, finding.name) for finding in found.will] == told


def test_index_whose_build_was_interrupted_is_dropped(empty: URL) -> None:
    execute(empty, FULL.script(rows=True))
    execute(empty, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'idx_token_usage_timestamp'::regclass")
    found = inspected(empty)
    assert ("drop index", "idx_token_usage_timestamp") in {(finding.kind, finding.name) for finding in found.will}
    assert [(finding.kind, finding.name) for finding in found.warnings] == [("pages", "token_usage")]


STRANGERS = {
    "foreign key dropped, orphans": """
        ALTER TABLE token_usage DROP CONSTRAINT fk_token_usage_user_id;
        INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)
        VALUES ('ghost', 's', 1, 'video', true), ('ghost', 't', 1, 'video', true);
    """,
    "check dropped, negative balances": """
        ALTER TABLE user_accounts DROP CONSTRAINT positive_tokens;
        UPDATE user_accounts SET tokens_remaining = -3 WHERE tokens_remaining = 0;
    """,
    "check without rows that break it": "ALTER TABLE token_usage DROP CONSTRAINT token_usage_mode_check",
    "a tier of their own": """
        ALTER TABLE user_accounts DROP CONSTRAINT user_accounts_subscription_tier_check,
          ADD CONSTRAINT user_accounts_subscription_tier_check
          CHECK (subscription_tier IN ('free', 'pro', 'enterprise', 'trial'));
        UPDATE user_accounts SET subscription_tier = 'trial' WHERE user_id = 'spent';
    """,
    "policy of the scripts altered": """
        ALTER POLICY "Allow all operations on token_usage" ON token_usage TO authenticated
    """,
    "forced": "ALTER TABLE call_sessions FORCE ROW LEVEL SECURITY",
    "view of other types": """
        DROP VIEW daily_token_usage;
        CREATE VIEW daily_token_usage AS
        SELECT current_date AS usage_date, mode, used_turn, 1::bigint AS session_count, 1::bigint AS total_tokens,
          1::double precision AS avg_tokens_per_session, 1::numeric AS total_minutes
        FROM token_usage;
        GRANT SELECT ON daily_token_usage TO pg_monitor;
    """,
    "view of other types that is read": """
        DROP VIEW daily_token_usage;
        CREATE VIEW daily_token_usage AS SELECT mode AS usage_date FROM token_usage;
        CREATE VIEW theirs AS SELECT count(*) FROM daily_token_usage;
    """,
    "wrong type": "DROP VIEW daily_token_usage; ALTER TABLE token_usage ALTER duration_seconds TYPE bigint",
    "column gone": "ALTER TABLE user_accounts DROP email",
    "index of another definition": """
        DROP INDEX idx_token_usage_timestamp; CREATE INDEX idx_token_usage_timestamp ON token_usage (mode);
        CREATE INDEX "Their index" ON token_usage (tokens_used);
    """,
    "host_id beside user_id": """
        ALTER TABLE user_presence ADD user_id text NOT NULL DEFAULT 'host', ALTER host_id DROP NOT NULL
    """,
    "defaults as another writes them": """
        ALTER TABLE user_accounts ALTER tokens_remaining SET DEFAULT '100'::integer, ALTER subscription_tier
        SET DEFAULT CAST('free' AS text)
    """,
    "index dropped": "DROP INDEX idx_token_usage_timestamp",
    "unique constraint on the host": """
        DROP INDEX idx_user_presence_host_unique;
        ALTER TABLE user_presence ADD CONSTRAINT idx_user_presence_host_unique UNIQUE (host_id);
    """,
    "second unique index on the host": "CREATE UNIQUE INDEX another ON user_presence (host_id)",
    "hosts twice": """
        DROP INDEX idx_user_presence_host_unique;
        INSERT INTO user_presence (host_id, is_available, room_id, updated_at)
        VALUES ('host', NULL, 'newest', '2027-01-01'), ('host', NULL, 'older', NULL);
    """,
    "hosts twice, referred to": """
        DROP INDEX idx_user_presence_host_unique;
        INSERT INTO user_presence (host_id, room_id) VALUES ('host', 'other');
        CREATE TABLE host_notes (presence uuid REFERENCES user_presence (id));
    """,
    "trigger and rule of their own": """
        CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no updates'; END $$;
        CREATE TRIGGER audit BEFORE UPDATE ON call_sessions FOR EACH ROW EXECUTE FUNCTION audit();
        ALTER TABLE call_sessions ENABLE ALWAYS TRIGGER audit;
        CREATE RULE "No deletes" AS ON DELETE TO token_usage DO INSTEAD NOTHING;
    """,
    "other defaults": "ALTER TABLE user_accounts ALTER tokens_remaining SET DEFAULT 50, ALTER created_at DROP DEFAULT",
    "no key of accounts": "ALTER TABLE invoices DROP CONSTRAINT invoices_user_id_fkey;"
    " ALTER TABLE token_usage DROP CONSTRAINT fk_token_usage_user_id; ALTER TABLE user_accounts DROP CONSTRAINT"
    " user_accounts_pkey",
    "not null by hand": "DELETE FROM token_usage WHERE timestamp IS NULL;"
    ' ALTER TABLE token_usage ALTER "timestamp" SET NOT NULL',
    "published by hand": "ALTER PUBLICATION supabase_realtime ADD TABLE token_usage, call_sessions",
    "a table under a view's name": "DROP VIEW daily_token_usage; CREATE TABLE daily_token_usage (id integer)",
    "check that is not valid": """
        ALTER TABLE call_sessions ADD CONSTRAINT theirs CHECK (room_id <> 'no clock') NOT VALID
    """,
    "check that is not valid, kept by what is filled": """
        ALTER TABLE call_sessions ADD CONSTRAINT theirs CHECK (room_id <> 'clock set back') NOT VALID
    """,
    "demo accounts deleted": "DELETE FROM user_accounts WHERE user_id IN ('developer', 'test_user_1')",
    "another fillfactor": "ALTER TABLE user_accounts SET (fillfactor = 90)",
    "table of the ledger's name": "CREATE TABLE token_ledger (entry integer)",
    "function of the engine's name and arguments": """
        CREATE FUNCTION tick_call(session uuid) RETURNS text LANGUAGE sql RETURN 'tick'
    """,
    "function of the engine's name alone": """
        CREATE FUNCTION top_up(tokens integer) RETURNS integer LANGUAGE sql RETURN tokens
    """,
    "view of a table's name": """
        ALTER TABLE call_sessions RENAME TO calls; CREATE VIEW call_sessions AS SELECT * FROM calls
    """,
    "trigger of a name that triggers of two tables have": """
        CREATE TRIGGER note_insert BEFORE UPDATE ON call_sessions
        FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()
    """,
    "function of a trigger function's name": """
        CREATE FUNCTION update_user_presence_updated_at(host text) RETURNS text LANGUAGE sql RETURN host;
        DROP TRIGGER update_user_presence_updated_at_trigger ON user_presence;
        DROP FUNCTION update_user_presence_updated_at();
        CREATE FUNCTION update_user_presence_updated_at() RETURNS text LANGUAGE sql RETURN 'now';
    """,
    "trigger of the ledger's name": """
        CREATE TRIGGER write_ledger BEFORE UPDATE ON user_accounts
        FOR EACH ROW EXECUTE FUNCTION update_updated_at_column()
    """,
}


@pytest.mark.parametrize("name", STRANGERS)
@pytest.mark.few(name=(0, 10, 20))
def test_stranger_database_is_said_as_it_is(new_sort: Callable[[str], URL], name: str) -> None:
    url = new_sort("supabase-old")
    execute(url, FULL.script(rows=True, by_hand=True))
    execute(url, STRANGERS[name])
    found = agrees(url)
    says = "\n".join(found.report())
    for finding in (*found.will, *found.warnings, *found.obstacles):
        assert says.count(str(finding)) >= 1, finding
    assert SAID.get(name, "") in says, says
    assert name not in UNSAID or UNSAID[name] not in says, says


SAID = {
    "check that is not valid": "  1 row of public.call_sessions with a NULL, which is filled, would break theirs",
    "foreign key dropped, orphans": "  add fk_token_usage_user_id on public.token_usage as NOT VALID, for new rows",
    "check without rows that break it": "  add token_usage_mode_check on public.token_usage",
    "a tier of their own": "user_accounts_subscription_tier_check on public.user_accounts differs from ours, and stays",
    "policy of the scripts altered": "Allow all operations on token_usage",
    "forced": "  remove FORCE ROW LEVEL SECURITY from public.call_sessions",
    "view of other types": "  drop view public.daily_token_usage, whose columns have other types than ours, and",
    "view of other types that is read": "  theirs reads view public.daily_token_usage",
    "wrong type": "public.token_usage cannot be taken over: its duration_seconds is bigint, not integer",
    "column gone": "public.user_accounts cannot be taken over: it lacks email",
    "index of another definition": "index idx_token_usage_timestamp differs from ours, and stays so",
    "host_id beside user_id": "  fill public.user_presence.host_id from user_id where it is NULL, and let",
    "hosts twice": ", whose host has a newer row, to oblivion.adoption_log: host 2",
    "other defaults": "change the default of public.user_accounts.tokens_remaining from 50 to 100",
    "no key of accounts": "  public.user_accounts has no primary key",
    "published by hand": "  add to the publication supabase_realtime: public.user_presence, public.user_accounts",
    "demo accounts deleted": "  add the demo accounts test_user_1, developer: -x demo=no leaves them out",
    "another fillfactor": "  change the fillfactor of public.user_accounts from 90 to 50",
    "table of the ledger's name": "  table public.token_ledger is there already, and ours has that name: rename it",
    "function of the engine's name and arguments": "  function public.tick_call(uuid) is there already",
    "view of a table's name": "  public.call_sessions cannot be taken over: it is no ordinary table",
    "trigger of a name that triggers of two tables have": "  trigger note_insert on public.call_sessions is there",
    "function of a trigger function's name": "update_user_presence_updated_at() is no trigger function, and ours has",
    "trigger of the ledger's name": "  trigger write_ledger on public.user_accounts is there already",
}
UNSAID = {
    "defaults as another writes them": "the default of public.user_accounts",
    "function of the engine's name alone": "top_up",
    "index dropped": "idx_token_usage_timestamp",
}
"""What is not told: it is no news, or of ours alone."""


def test_what_the_upgrade_leaves_wrong_is_told_with_its_cure(empty: URL) -> None:
    execute(
        empty,
        f"""
        {FIRST.script()};
        ALTER TABLE call_sessions ALTER room_id DROP NOT NULL, ADD must text NOT NULL;
        ALTER TABLE token_usage ALTER tokens_used DROP NOT NULL, ALTER mode SET DEFAULT 'video';
        ALTER TABLE user_presence ALTER room_id DROP NOT NULL, ALTER room_id SET DEFAULT 'lobby';
        ALTER TABLE user_accounts ALTER email SET NOT NULL;
        ALTER TABLE token_usage ADD CONSTRAINT second FOREIGN KEY (user_id) REFERENCES user_accounts (user_id);
        CREATE TABLE audit_log (what text);
        GRANT INSERT ON audit_log TO PUBLIC;
        CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN INSERT INTO audit_log VALUES (TG_OP); RETURN NEW; END
        $$;
        CREATE TRIGGER audit AFTER INSERT OR UPDATE ON token_usage FOR EACH ROW EXECUTE FUNCTION audit()
        """,
    )
    told = [str(finding) for finding in inspected(empty).warnings]
    cures = [cure[0] for said in told if (cure := re.search(r"ALTER (TABLE|FUNCTION) \S+ [^,]*", said))]
    assert len(cures) == 8, told
    execute(empty, "; ".join(cures))
    assert run("upgrade", "head", url=empty).status == 0
    assert "FAIL" not in run("verify", url=empty).out
    assert run("check", url=empty).status == 0


@pytest.mark.parametrize("column", ["user_id", "tokens_used", "mode", "used_turn"])
@pytest.mark.few(column="mode")
def test_row_that_no_report_can_sum_up_is_an_obstacle(empty: URL, column: str) -> None:
    execute(
        empty,
        f"""
        {FIRST.script()};
        ALTER TABLE token_usage ALTER {column} DROP NOT NULL;
        INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)
        VALUES ('demo_user', 's', 1, 'video', false);
        UPDATE token_usage SET {column} = NULL
        """,
    )
    assert f"1 row of public.token_usage with a NULL in {column}" in str(inspected(empty).obstacles)
    assert "Correct or delete them: no report can sum them up" in run("upgrade", "head", url=empty).error
    execute(empty, "DELETE FROM token_usage")
    assert inspected(empty).obstacles == []
    assert run("upgrade", "head", url=empty).status == 0
    assert run("check", url=empty).status == 0
