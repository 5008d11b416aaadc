"""Whatever the metadata can make is compared, or refused by name; and PostgreSQL's own list of what there is."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING, NamedTuple

import pytest
from legacy_states import STATES
from support import PROJECT, declared, dump, execute, psql, query, run
from test_drift import objects

from oblivion_schema import metadata
from oblivion_schema.drift.catalog import read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL, Connection, Engine

pytestmark = pytest.mark.server


def version(url: URL) -> int:
    """The server's major version."""
    [(major,)] = query(url, "SELECT current_setting('server_version_num')::integer / 10000")
    return int(str(major))


# What somebody made before: in another schema, and a publication that Supabase makes.
THEIRS = """
CREATE SCHEMA app;
CREATE TABLE app.theirs (id integer);
CREATE TABLE app.commented (id integer);
CREATE TABLE app.without ();
CREATE PUBLICATION supabase_realtime;
"""
NOT_COMPARED = (
    ("CREATE MATERIALIZED VIEW odd_matview AS SELECT 1 AS it", "materialized view public.odd_matview"),
    ("CREATE SEQUENCE odd_sequence", "sequence public.odd_sequence"),
    ("CREATE TABLE odd_serial (id serial)", "sequence public.odd_serial_id_seq"),
    ("CREATE TABLE odd_parts (id integer) PARTITION BY RANGE (id)", "partitioned table public.odd_parts"),
    ("CREATE TEMPORARY TABLE odd_temporary (id integer)", "table pg_temp.odd_temporary"),
    ("CREATE TYPE odd_enum AS ENUM ('a')", "type public.odd_enum"),
    ("CREATE TYPE odd_row AS (id integer)", "type public.odd_row"),
    ("CREATE DOMAIN odd_domain AS integer CHECK (VALUE > 0)", "type public.odd_domain"),
    ("CREATE TYPE odd_range AS RANGE (SUBTYPE = integer)", "type public.odd_range"),
    ("CREATE AGGREGATE odd_sum(integer) (SFUNC = int4pl, STYPE = integer)", "aggregate public.odd_sum(integer)"),
    (
        "CREATE FUNCTION odd_window() RETURNS bigint LANGUAGE internal WINDOW AS 'window_row_number'",
        "window function public.odd_window()",
    ),
    ("CREATE OPERATOR public.=== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4eq)", "operator public.===("),
    ("CREATE CAST (public.token_rates AS text) WITH INOUT", "cast (public.token_rates AS pg_catalog.text)"),
    ("CREATE OPERATOR FAMILY public.odd_family USING btree", "operator family public.odd_family USING btree"),
    (
        (
            "CREATE OPERATOR CLASS public.odd_class FOR TYPE integer USING hash AS"
            " OPERATOR 1 =, FUNCTION 1 hashint4(integer)"
        ),
        "operator class public.odd_class USING hash",
    ),
    ('CREATE COLLATION public.odd_collation FROM "C"', "collation public.odd_collation"),
    (
        "CREATE CONVERSION public.odd_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8",
        "conversion public.odd_conversion",
    ),
    ("CREATE TEXT SEARCH DICTIONARY public.odd_dict (TEMPLATE = simple)", "text search dictionary public.odd_dict"),
    ("CREATE TEXT SEARCH CONFIGURATION public.odd_config (COPY = simple)", "text search configuration public.odd_c"),
    ("CREATE TEXT SEARCH TEMPLATE public.odd_template (LEXIZE = dsimple_lexize)", "text search template public.odd_t"),
    (
        (
            "CREATE TEXT SEARCH PARSER public.odd_parser (START = prsd_start, GETTOKEN = prsd_nexttoken,"
            " END = prsd_end, LEXTYPES = prsd_lextype)"
        ),
        "text search parser public.odd_parser",
    ),
    ("CREATE FOREIGN DATA WRAPPER odd_wrapper", "foreign-data wrapper odd_wrapper"),
    ("CREATE SERVER odd_server FOREIGN DATA WRAPPER odd_wrapper", "server odd_server"),
    ("CREATE USER MAPPING FOR CURRENT_USER SERVER odd_server", "user mapping "),
    ("CREATE FOREIGN TABLE odd_foreign (id integer) SERVER odd_server", "foreign table public.odd_foreign"),
    (
        (
            "CREATE FUNCTION odd_event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
            " CREATE EVENT TRIGGER odd_event ON sql_drop EXECUTE FUNCTION odd_event()"
        ),
        "event trigger odd_event",
    ),
    ("CREATE TRUSTED LANGUAGE odd_language HANDLER plpgsql_call_handler", "language odd_language"),
    ("CREATE ACCESS METHOD odd_am TYPE TABLE HANDLER heap_tableam_handler", "access method odd_am"),
    (
        "CREATE TRANSFORM FOR integer LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal))",
        "transform for integer ",
    ),
    ("CREATE PUBLICATION odd_publication FOR TABLE token_rates", "publication odd_publication"),
    ("ALTER PUBLICATION supabase_realtime SET (publish = 'insert')", "publication supabase_realtime"),
    (
        "CREATE SUBSCRIPTION odd_subscription CONNECTION 'dbname=x' PUBLICATION y WITH (connect = false)",
        "subscription odd_subscription",
    ),
    ("CREATE STATISTICS public.odd ON mode, used_turn FROM token_usage", "statistics object public.odd"),
    ("CREATE RULE odd AS ON DELETE TO token_usage DO INSTEAD NOTHING", "rule odd on public.token_usage"),
    ("CREATE SCHEMA odd_schema; CREATE TABLE odd_schema.odd (id integer PRIMARY KEY)", "table odd_schema.odd"),
    ("CREATE INDEX odd_index ON app.commented (id)", "index app.odd_index"),
    ("ALTER TABLE app.theirs ADD odd integer", "table app.theirs"),
    ("COMMENT ON TABLE app.commented IS 'odd'", "comment on table app.commented"),
    ("COMMENT ON SCHEMA public IS 'odd'", "comment on schema public"),
    ("COMMENT ON TYPE public.token_usage IS 'odd'", "comment on type public.token_usage"),
    ("GRANT USAGE ON SCHEMA app TO anon", "schema app"),
    ("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TYPES TO anon", "default acl for role "),
    ("SELECT lo_create(4711)", "large object 4711"),
    ("ALTER TABLE token_usage DISABLE TRIGGER ALL, ENABLE TRIGGER USER", "disabled triggers of fk_token_usage_user_id"),
    ("ALTER VIEW active_calls ALTER mode SET DEFAULT 'x'", "default of view column public.active_calls.mode"),
    ("ALTER TABLE call_sessions INHERIT app.without", "inheritance of public.call_sessions from app.without"),
    ("CREATE TABLE odd_of OF odd_row", "OF public.odd_row of public.odd_of"),
    (
        "CREATE TABLE odd_identity (id integer GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME odd_numbers))",
        "sequence public.odd_numbers of identity public.odd_identity.id",
    ),
    (
        "ALTER FUNCTION update_updated_at_column() DEPENDS ON EXTENSION plpgsql",
        "dependence of function public.update_updated_at_column() on an extension",
    ),
)
SINCE_18 = (
    ("CREATE TABLE odd_nulls (id integer CONSTRAINT odd NOT NULL)", "NOT NULL constraint odd on"),
    (
        "CREATE TABLE odd_inherit (id integer NOT NULL NO INHERIT)",
        "NO INHERIT of NOT NULL of public.odd_inherit.id",
    ),
)


def test_what_is_not_compared_is_refused_in_the_metadata_by_name(upgraded: URL) -> None:
    """All of it at once, each of which is named."""
    execute(upgraded, THEIRS)
    before = dump(upgraded)
    odd = [*NOT_COMPARED, *(SINCE_18 if version(upgraded) >= 18 else ())]
    if query(upgraded, "SELECT FROM pg_available_extensions WHERE name = 'citext'"):
        odd.append(("CREATE EXTENSION citext SCHEMA public", "extension citext"))
    with declared(*(sql for sql, _ in odd)):
        error = run("check", url=upgraded).error
    assert [named for _, named in odd if named not in error] == [], error
    assert dump(upgraded) == before


@pytest.fixture
def since_18(upgraded: URL) -> URL:
    """A database of a server that keeps NOT NULL as constraints, and knows NOT ENFORCED."""
    if version(upgraded) < 18:
        pytest.skip("the server is older than PostgreSQL 18")
    return upgraded


NOT_VALID = """
ALTER TABLE {table} ALTER {column} DROP NOT NULL;
{rows};
ALTER TABLE {table} ADD CONSTRAINT nn NOT NULL {column} NOT VALID;
"""


@pytest.mark.full
def test_rows_with_null_under_a_not_null_that_is_not_valid_are_named(since_18: URL, empty: URL) -> None:
    rows = "INSERT INTO call_sessions (room_id, mode) VALUES (NULL, 'video'), (NULL, 'voice-only')"
    execute(since_18, NOT_VALID.format(table="call_sessions", column="room_id", rows=rows))
    differs = "nullability public.call_sessions.room_id differs"
    against = ("--against", since_18.render_as_string(hide_password=False))
    scratch = ("--scratch", empty.render_as_string(hide_password=False))
    assert differs in run("check", url=since_18).error
    assert differs in run("check", *against, *scratch).error
    [line] = [line for line in run("verify", url=since_18).out.splitlines() if "call_sessions, " in line]
    assert re.match(
        r"FAIL  table call_sessions, \d+ columns: takes NULL in room_id, and 2 old rows break it \(id ", line
    )
    execute(since_18, "UPDATE call_sessions SET room_id = 'r'")
    psql(since_18, run("check", "--sql", url=since_18).out)
    assert run("check", url=since_18).status == 0
    assert run("verify", url=since_18).status == 0


@pytest.mark.full
def test_nulls_of_a_table_made_by_hand_are_foreseen(since_18: URL, empty: URL) -> None:
    """Under a NOT NULL that is not valid; what the upgrade fills in it fills in there, too."""
    assert version(since_18) == version(empty)
    psql(empty, STATES[-1].script(rows=True))
    filled = "UPDATE call_sessions SET start_time = NULL WHERE ctid IN (SELECT min(ctid) FROM call_sessions)"
    execute(empty, NOT_VALID.format(table="call_sessions", column="start_time", rows=filled))
    assert re.search(r"fill NULLs in .* of public.call_sessions: .*start_time", run("inspect", url=empty).out)
    refused = (
        "ALTER TABLE token_usage DROP CONSTRAINT IF EXISTS nn;"
        " INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)"
        " VALUES ('demo_user', 's', 1, 'video', NULL)"
    )
    execute(empty, NOT_VALID.format(table="token_usage", column="used_turn", rows=refused))
    said = run("inspect", url=empty).out
    assert "1 row of public.token_usage with a NULL in used_turn" in said
    assert "have a NULL in user_id, tokens_used, mode or used_turn" in run("upgrade", "head", url=empty).error
    execute(empty, "DELETE FROM token_usage WHERE used_turn IS NULL")
    assert run("upgrade", "head", url=empty).status == 0
    assert run("check", url=empty).status == 0


@pytest.mark.full
def test_constraint_that_is_not_enforced_is_in_force_for_nobody(since_18: URL) -> None:
    execute(
        since_18,
        """
        ALTER TABLE token_usage ALTER CONSTRAINT fk_token_usage_user_id NOT ENFORCED;
        ALTER TABLE token_usage DROP CONSTRAINT valid_duration;
        ALTER TABLE token_usage ADD CONSTRAINT valid_duration CHECK (duration_seconds >= 0) NOT ENFORCED;
        INSERT INTO token_usage (user_id, session_id, tokens_used, mode, used_turn)
        VALUES ('nobody', 's', 2, 'video', false);
        """,
    )
    said = run("verify", url=since_18).out
    assert "constraint token_usage.fk_token_usage_user_id: is NOT ENFORCED, and 1 old rows break it (id " in said
    assert re.search(r"constraint token_usage.valid_duration: is NOT ENFORCED: put it back with .* check --sql", said)
    execute(since_18, "DELETE FROM token_usage")
    psql(since_18, run("check", "--sql", url=since_18).out)
    assert run("verify", url=since_18).status == 0


@pytest.mark.parametrize("kind", ["a NOT NULL", "a constraint trigger"])
def test_comment_on_what_a_table_of_somebody_else_is_made_of_is_not_ours(upgraded: URL, kind: str) -> None:
    if kind == "a NOT NULL" and version(upgraded) < 18:
        pytest.skip("the server is older than PostgreSQL 18")
    execute(
        upgraded,
        """
        CREATE TABLE theirs (id integer NOT NULL);
        CREATE CONSTRAINT TRIGGER told AFTER INSERT ON theirs FOR EACH ROW
          EXECUTE FUNCTION update_updated_at_column();
        """,
    )
    name = {"a NOT NULL": "theirs_id_not_null", "a constraint trigger": "told"}[kind]
    execute(upgraded, f"COMMENT ON CONSTRAINT {name} ON theirs IS 'theirs'")
    assert run("check", url=upgraded).status == 0


def test_range_type_and_window_function_are_what_they_are(upgraded: URL, caplog: pytest.LogCaptureFixture) -> None:
    """Its constructor functions belong to the type: a revision that drops what is unknown leaves them."""
    execute(
        upgraded,
        "CREATE TYPE theirs AS RANGE (SUBTYPE = integer);"
        " CREATE FUNCTION their_rank() RETURNS bigint LANGUAGE internal WINDOW AS 'window_rank'",
    )
    assert run("check", url=upgraded).status == 0
    left = "Not ours, left alone: type public.theirs, window function public.their_rank()"
    assert caplog.messages[-1] == left
    here = ("-x", "drop-unknown=yes")
    assert run(*here, "check", url=upgraded).status == 0


def test_objects_of_any_kind_in_our_schema_are_named(upgraded: URL) -> None:
    execute(
        upgraded,
        """
        CREATE OPERATOR oblivion.=== (LEFTARG = integer, RIGHTARG = integer, FUNCTION = int4eq);
        CREATE COLLATION oblivion.odd FROM "C";
        CREATE TEXT SEARCH DICTIONARY oblivion.odd (TEMPLATE = simple);
        ALTER SEQUENCE token_ledger_id_seq RENAME TO numbers;
        """,
    )
    error = run("check", url=upgraded).error
    for name in (
        "operator oblivion.===(integer,integer)",
        "collation oblivion.odd",
        "text search dictionary oblivion.odd",
        "sequence public.numbers of identity public.token_ledger.id",
    ):
        assert f"{name} is in neither the metadata nor a revision" in error, error
    said = run("verify", url=upgraded).out
    execute(upgraded, re.findall("ALTER SEQUENCE public.numbers RENAME TO .*", said)[0])
    assert "public.numbers" not in run("check", url=upgraded).error


WITH_EXTENSIONS = """
ALTER TABLE user_accounts ADD nick citext CHECK (nick <> 'x'::citext);
CREATE INDEX nick_like ON user_accounts USING gin (email gin_trgm_ops);
CREATE FUNCTION like_nick(citext) RETURNS real LANGUAGE sql STABLE SET search_path = ''
  RETURN public.similarity($1::text, 'a');
"""


@pytest.fixture
def with_extensions(new_sort: Callable[..., URL], server: URL) -> Callable[[str], URL]:
    """Make an upgraded database of one of the `SORTS`, in whose schema public citext and pg_trgm are."""
    if len(query(server, "SELECT FROM pg_available_extensions WHERE name IN ('citext', 'pg_trgm')")) < 2:
        pytest.skip("the server has no citext or no pg_trgm")

    def make(sort: str) -> URL:
        url = new_sort(sort)
        execute(url, "CREATE EXTENSION citext; CREATE EXTENSION pg_trgm")
        assert run("upgrade", "head", url=url).status == 0
        return url

    return make


@pytest.fixture
def checkout(tmp_path: Path) -> tuple[str, str]:
    """The option for a folder of revisions that a test may add to."""
    shutil.copytree(PROJECT / "alembic", tmp_path / "alembic")
    for name in ("alembic.ini", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path)
    return "-c", str(tmp_path / "alembic.ini")


def test_metadata_uses_an_extension_in_schema_public(
    with_extensions: Callable[[str], URL], checkout: tuple[str, str]
) -> None:
    superuser = with_extensions("superuser")
    before = dump(superuser)
    with declared(WITH_EXTENSIONS):
        assert "column public.user_accounts.nick is missing" in run("check", url=superuser).error
        assert run(*checkout, "revision", "--autogenerate", "-m", "nick", url=superuser).status == 0
        assert dump(superuser) == before
        assert run(*checkout, "upgrade", "head", url=superuser).status == 0
        assert run(*checkout, "check", url=superuser).status == 0
    types = "SELECT atttypid::regtype::text FROM pg_attribute WHERE attrelid = 'user_accounts'::regclass"
    assert ("citext",) in query(superuser, types)
    assert run(*checkout, "downgrade", "-1", url=superuser).status == 0
    assert dump(superuser) == before


def test_owner_who_may_not_move_an_extension_is_told_what_to_do(
    with_extensions: Callable[[str], URL], server: URL, checkout: tuple[str, str]
) -> None:
    url = with_extensions("owner")
    assert run("check", url=url).status == 0, "nothing of ours needs it"
    with declared(WITH_EXTENSIONS):
        error = run("check", url=url).error
        assert 'type "citext" does not exist, line ' in error
        assert "If that belongs to the extension citext or pg_trgm: the schema is built" in error
        advice = error.partition("schema public first: ")[2].rstrip(".")
        execute(server.set(database=url.database), advice)
        owner, path = url.username, "public, extensions"
        execute(
            server.set(database=url.database),
            f"GRANT USAGE ON SCHEMA extensions TO {owner}; ALTER ROLE {owner} SET search_path = {path}",
        )
    with declared(re.sub(r"(public\.)?(similarity|citext|gin_trgm_ops)\b", r"extensions.\2", WITH_EXTENSIONS)):
        assert "column public.user_accounts.nick is missing" in run("check", url=url).error
        assert run(*checkout, "revision", "--autogenerate", "-m", "nick", url=url).status == 0
        assert run(*checkout, "upgrade", "head", url=url).status == 0
        assert run(*checkout, "check", url=url).status == 0


@pytest.mark.parametrize("tag", ["", "WHEN TAG IN ('CREATE POLICY')"])
def test_event_trigger_that_needs_a_table_of_its_own_is_named(upgraded: URL, empty: URL, tag: str) -> None:
    execute(
        upgraded,
        f"""
        CREATE TABLE public.ddl_history (id integer GENERATED ALWAYS AS IDENTITY, command text);
        CREATE FUNCTION public.note_ddl() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
          INSERT INTO public.ddl_history (command) VALUES (tg_tag);
        END
        $$;
        CREATE EVENT TRIGGER "note DDL" ON ddl_command_end {tag} EXECUTE FUNCTION public.note_ddl();
        """,
    )
    error = run("check", url=upgraded).error
    assert "The event trigger note DDL fails while the schema is built" in error
    assert 'relation "public.ddl_history" does not exist' in error
    against = ("--against", upgraded.render_as_string(hide_password=False))
    assert run("check", *against, "--scratch", empty.render_as_string(hide_password=False)).status == 0
    execute(upgraded, re.findall("ALTER EVENT TRIGGER .* DISABLE", error)[0])
    assert run("check", url=upgraded).status == 0


WITHOUT_MEMBERS = {
    "of all tables": (15, "FOR ALL TABLES"),
    "of all sequences": (19, "FOR ALL SEQUENCES"),
    "of another role": (15, ""),
}


@pytest.mark.parametrize("publication", WITHOUT_MEMBERS)
def test_publication_that_has_no_members_of_ours_needs_none(
    new_sort: Callable[[str], URL], server: URL, empty: URL, publication: str
) -> None:
    since, members = WITHOUT_MEMBERS[publication]
    if version(empty) < since:
        pytest.skip(f"the server is older than PostgreSQL {since}")
    url = new_sort("owner")
    execute(server.set(database=url.database), f"CREATE PUBLICATION supabase_realtime {members}")
    assert run("upgrade", "head", url=url).status == 0
    assert run("check", url=url).status == 0
    against = ("--against", url.render_as_string(hide_password=False))
    assert run("check", *against, "--scratch", empty.render_as_string(hide_password=False)).status == 0


def decided(major: int) -> dict[str, dict[str, str]]:
    """What catalogs.txt says of each column that a version has, by catalog; `*` is all columns of one."""
    found: dict[str, dict[str, str]] = {}
    catalog = decision = ""
    for line in (PROJECT / "tests" / "catalogs.txt").read_text(encoding="utf-8").splitlines():
        words = line.split()
        if not words or line.startswith("#"):
            continue
        if line.startswith("pg_"):
            catalog, words = words[0], words[1:]
        elif words[0] in DECISIONS:
            decision, words = words[0], words[1:]
            if words[0] == "*":
                catalog, words = "*", words[1:]
        for word in words:
            name, _, versions = word.partition("@")
            first, _, last = versions.partition("-")
            if int(first or 0) <= major <= int(last or major):
                its = found.setdefault(name if catalog == "*" else catalog, {})
                column = "*" if catalog == "*" else name
                assert column not in its, (catalog, word)
                its[column] = decision
    return found


DECISIONS = ("compared", "refused", "left", "derived")
COLUMNS_OF_CATALOGS = """
SELECT c.relname, attname
FROM pg_class AS c
JOIN pg_attribute ON attrelid = c.oid
WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'r' AND attnum > 0 AND NOT attisdropped
"""


def test_what_becomes_of_each_column_of_the_catalogs_is_decided(server: URL) -> None:
    """A new version's column, or catalog, fails here: tests/catalogs.txt says what to decide."""
    known = decided(version(server))
    there: dict[str, set[str]] = {}
    for catalog, column in query(server, COLUMNS_OF_CATALOGS):
        there.setdefault(str(catalog), set()).add(str(column))
    columns = {
        f"{catalog}.{column}" for catalog, its in there.items() if "*" not in known.get(catalog, ()) for column in its
    }
    decided_on = {f"{catalog}.{column}" for catalog, its in known.items() for column in its if column != "*"}
    undecided = sorted(columns - decided_on)
    assert not undecided, f"decide in tests/catalogs.txt what becomes of {', '.join(undecided)}"
    assert decided_on <= columns, f"PostgreSQL {version(server)} has no {', '.join(sorted(decided_on - columns))}"
    assert known.keys() <= there.keys()


# By what a row of each catalog is found again, and the columns that this is made of.
_OURS = "IN (SELECT oid FROM pg_class WHERE relnamespace::regnamespace::text IN ('public', 'oblivion'))"
ROWS = {
    "pg_class": ("oid::regclass", f"oid {_OURS}", {"relname", "relnamespace"}),
    "pg_attribute": ("attrelid::regclass, attname", f"attrelid {_OURS} AND attnum > 0", {"attrelid", "attname"}),
    "pg_attrdef": ("adrelid::regclass, adnum", f"adrelid {_OURS}", {"adrelid", "adnum"}),
    "pg_constraint": ("conname", f"conrelid {_OURS}", {"conrelid", "conname"}),
    "pg_index": ("indexrelid::regclass", f"indexrelid {_OURS}", {"indexrelid"}),
    "pg_sequence": ("seqrelid::regclass", "true", {"seqrelid"}),
    "pg_proc": (
        "oid::regprocedure",
        "pronamespace::regnamespace::text IN ('public', 'oblivion')",
        {"proname", "pronamespace", "proargtypes"},
    ),
    "pg_trigger": ("tgrelid::regclass, tgname", "NOT tgisinternal", {"tgrelid", "tgname"}),
    "pg_policy": ("polrelid::regclass, polname", "true", {"polrelid", "polname"}),
    "pg_rewrite": ("ev_class::regclass", f"ev_class {_OURS}", {"ev_class"}),
    "pg_publication_rel": ("prpubid, prrelid::regclass", "true", {"prpubid", "prrelid"}),
    "pg_namespace": ("nspname", "nspname = 'oblivion'", {"nspname"}),
    "pg_description": (
        "pg_describe_object(classoid, objoid, objsubid)",
        "objoid >= 16384",
        {"objoid", "classoid", "objsubid"},
    ),
}


class Attribute(NamedTuple):
    """A change of one column of a catalog."""

    catalog: str
    column: str
    since: int
    sql: str


def attributes() -> tuple[str, list[Attribute]]:
    """What attributes.sql sets up, and its changes."""
    text = (PROJECT / "tests" / "attributes.sql").read_text(encoding="utf-8")
    setup, *rest = re.split(r"^-- (?=pg_)", text.partition("-- setup\n")[2], flags=re.MULTILINE)
    found = []
    for part in rest:
        head, _, sql = part.partition("\n")
        name, _, since = head.partition(" since ")
        catalog, _, column = name.partition(".")
        found.append(Attribute(catalog, column, int(since or 0), sql))
    return setup, found


def rows_of(connection: Connection, catalog: str) -> dict[str, dict[str, object]]:
    """The rows of a catalog that are about our schemas, by the names in them."""
    key, condition, _ = ROWS[catalog]
    sql = f"SELECT concat_ws(' ', {key}), to_jsonb(c) FROM {catalog} AS c WHERE {condition}"
    return {str(name): row for name, row in connection.exec_driver_sql(sql)}


def test_each_column_that_is_said_to_be_compared_is(shared_engine: Engine) -> None:
    setup, changes = attributes()
    with shared_engine.connect() as connection:
        connection.exec_driver_sql(f"SET LOCAL search_path = public; {setup}")
        major = int((connection.dialect.server_version_info or (0,))[0])
        before = objects(read(connection, metadata))
        for change in changes:
            if change.since > major:
                continue
            with connection.begin_nested() as savepoint:
                rows = rows_of(connection, change.catalog)
                connection.exec_driver_sql(change.sql)
                changed = {
                    column
                    for name, row in rows_of(connection, change.catalog).items()
                    for column in row
                    if name in rows and row[column] != rows[name][column]
                }
                assert change.column in changed, f"it changes {changed}: {change}"
                assert objects(read(connection, metadata)) != before, change
                savepoint.rollback()
    tried = {(change.catalog, change.column) for change in changes}
    for catalog, columns in decided(major).items():
        compared = {column for column, decision in columns.items() if decision == "compared"}
        if compared:
            assert {column for name, column in tried if name == catalog} | ROWS[catalog][2] >= compared, catalog
