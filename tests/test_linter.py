"""What Supabase's database linter finds, without its code, and that docs/access.md answers it truly."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import pytest
from pushing import SupabaseCLI, by_tcp
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from support import API_ROLES, PROJECT, engine_of, execute, libpq, query, request, run

from oblivion_schema import upgrade

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL

    from oblivion_schema.tables.access import Mode, PageBilling

OURS: Final = "IN ('public'::regnamespace, 'oblivion'::regnamespace)"
KEYLESS: Final = {"oblivion.call_deltas", "oblivion.usage_deltas"}
INLINED: Final = {"public.tick_call", "public.end_call", "oblivion.call_amounts"}
# The functions with their owner's rights that a plain function of schema public calls for its caller.
BEHIND: Final = {
    f"oblivion.{name}"
    for name in ("advance_call", "call_quote", "end_call", "explain_call", "host_presence", "start_call", "tick_call")
}

# All that makes a difference to the linter: what is granted.
IN_ALL_GRANTS: Final = pytest.mark.parametrize(
    ("mode", "pages"),
    [("open", "trusted"), ("authenticated", "trusted"), ("authenticated", "metered")],
    ids=["open", "authenticated", "authenticated-metered"],
)


@pytest.mark.server
def test_only_the_deltas_have_no_primary_key(upgraded: URL) -> None:
    keyless = f"""
    SELECT concat(c.relnamespace::regnamespace, '.', c.relname)
    FROM pg_class AS c
    WHERE c.relnamespace {OURS} AND c.relkind IN ('r', 'p')
      AND NOT EXISTS (SELECT FROM pg_index AS i WHERE i.indrelid = c.oid AND i.indisprimary)
    """
    assert {name for (name,) in query(upgraded, keyless)} == KEYLESS


@pytest.mark.server
def test_only_functions_whose_names_were_bound_have_no_search_path(upgraded: URL) -> None:
    loose = f"""
    SELECT concat(p.pronamespace::regnamespace, '.', p.proname), p.prosqlbody IS NOT NULL AND NOT p.prosecdef
    FROM pg_proc AS p
    WHERE p.pronamespace {OURS} AND NOT coalesce(p.proconfig, '{{}}') @> ARRAY['search_path=""']
    """
    assert set(query(upgraded, loose)) == {(name, True) for name in INLINED}


@IN_ALL_GRANTS
@pytest.mark.server
def test_no_client_reaches_a_function_with_its_owners_rights_by_name(
    upgraded: URL, mode: Mode, pages: PageBilling
) -> None:
    assert run("access", mode, url=upgraded).status == 0
    assert run("pages", pages, url=upgraded).status == 0
    within_reach = "SELECT proname FROM pg_proc WHERE prosecdef AND pronamespace = 'public'::regnamespace"
    assert query(upgraded, within_reach) == []
    roles = ", ".join(f"('{role}')" for role in ("public", "authenticator", *API_ROLES))
    usage = f"SELECT role FROM (VALUES {roles}) AS r (role) WHERE has_schema_privilege(role, 'oblivion', 'USAGE')"
    assert query(upgraded, usage) == []
    for role in ("anon", "authenticated"):
        executable = f"""
        SELECT
          concat(pronamespace::regnamespace, '.', proname),
          coalesce((SELECT string_agg(concat('NULL::', t::regtype), ', ') FROM unnest(proargtypes::oid[]) AS t), '')
        FROM pg_proc
        WHERE prosecdef AND pronamespace {OURS} AND has_function_privilege('{role}', oid, 'EXECUTE')
        """
        found = query(upgraded, executable)
        its = BEHIND | {"oblivion.open_account"} if role == "authenticated" else BEHIND
        assert {name for name, _ in found} == its
        for name, arguments in found:
            with (
                request(upgraded, role) as client,
                pytest.raises(ProgrammingError, match="permission denied for schema oblivion"),
            ):
                client.execute(text(f"SELECT {name}({arguments})"))


# -- Functions without a search_path

ASKED: Final = {
    "public.tick_call": "SELECT status, charged, balance FROM public.tick_call('{call}')",
    "public.end_call": "SELECT status, charged, balance FROM public.end_call('{call}')",
    "oblivion.call_amounts": (
        "SELECT a.* FROM public.call_sessions AS c CROSS JOIN LATERAL"
        " oblivion.call_amounts(c.start_time, c.end_time, c.mode, c.used_turn, c.credit_cost) AS a"
    ),
}


@pytest.mark.parametrize("function", sorted(INLINED))
@pytest.mark.server
def test_search_path_would_keep_a_function_out_of_the_query_that_calls_it(upgraded: URL, function: str) -> None:
    asked = ASKED[function].format(call="00000000-0000-0000-0000-000000000000")

    def is_scanned() -> bool:
        plan = query(upgraded, f"EXPLAIN VERBOSE {asked}")
        return any(f"Function Scan on {function}" in str(line) for (line,) in plan)

    assert not is_scanned()
    execute(upgraded, f"ALTER FUNCTION {function} SET search_path = ''")
    assert is_scanned()


# Of each name that a body has, one that fails or gives something else.
DECOYS: Final = """
CREATE SCHEMA decoy;
GRANT USAGE ON SCHEMA decoy TO PUBLIC;
CREATE FUNCTION decoy.raises() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'took a decoy'; END $$;
CREATE DOMAIN decoy.text AS pg_catalog.text CHECK (decoy.raises());
CREATE DOMAIN decoy.date AS pg_catalog.date CHECK (decoy.raises());
CREATE DOMAIN decoy.int4 AS pg_catalog.int4 CHECK (decoy.raises());
CREATE COLLATION decoy."default" FROM "C";
CREATE TYPE decoy.live_calls AS (decoy integer);
CREATE FUNCTION decoy.isfinite(timestamptz) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.raises()';
CREATE FUNCTION decoy.timezone(pg_catalog.text, timestamptz) RETURNS timestamp LANGUAGE sql
  AS 'SELECT now()::timestamp WHERE decoy.raises()';
CREATE FUNCTION decoy.equal(pg_catalog.text, pg_catalog.text) RETURNS boolean LANGUAGE sql AS 'SELECT decoy.raises()';
CREATE FUNCTION decoy.minus(numeric, numeric) RETURNS numeric LANGUAGE sql AS 'SELECT 7 WHERE decoy.raises()';
CREATE OPERATOR decoy.= (LEFTARG = pg_catalog.text, RIGHTARG = pg_catalog.text, FUNCTION = decoy.equal);
CREATE OPERATOR decoy.- (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = decoy.minus);
"""
ASIDE: Final = "SET LOCAL search_path = decoy, pg_catalog, public"


@pytest.fixture
def with_decoys(upgraded: URL) -> URL:
    """A database with the decoys."""
    execute(upgraded, DECOYS)
    return upgraded


@pytest.mark.parametrize("function", sorted(INLINED))
@pytest.mark.server
def test_search_path_does_not_change_what_a_function_without_one_means(with_decoys: URL, function: str) -> None:
    def outcome(*before: str) -> list[object]:
        role = "anon" if function.startswith("public.") else "postgres"
        with request(with_decoys, "anon") if role == "anon" else engine_of(with_decoys).connect() as client:
            call = client.scalar(text("SELECT session_id FROM public.start_call('demo_user', 'room', 'video')"))
            for sql in before:
                client.execute(text(sql))
            return list(map(tuple, client.execute(text(ASKED[function].format(call=call)))))

    plain = outcome()
    assert len(plain) == 1
    assert outcome(ASIDE) == plain


@pytest.mark.parametrize(
    "named", ["isfinite(now())", "'a'::pg_catalog.text = 'b'::pg_catalog.text", "2.0 - 1.0", "'a'::text"]
)
def test_decoy_is_taken_where_names_are_looked_up(with_decoys: URL, named: str) -> None:
    with request(with_decoys, "anon") as client, pytest.raises(DBAPIError, match="took a decoy"):
        client.execute(text(f"{ASIDE}; SELECT {named}"))


# -- By the linter that the CLI has

ANSWERED: Final = {
    *(("no_primary_key", "INFO", name) for name in KEYLESS),
    *(("function_search_path_mutable", "WARN", name) for name in INLINED),
}


@IN_ALL_GRANTS
@pytest.mark.full
def test_linter_of_the_cli_finds_what_is_answered_and_nothing_else(
    new_sort: Callable[..., URL], tmp_path: Path, mode: Mode, pages: PageBilling
) -> None:
    url = new_sort("supabase-new")
    upgrade(url, access=mode, pages=pages)
    cli = SupabaseCLI.at_home_in(tmp_path)
    with by_tcp(url) as target:
        found = cli.run("db", "advisors", "--output=json", "--level=info", f"--remote={libpq(target)}", folder=tmp_path)
    findings = {
        (finding["name"], finding["level"], f"{finding['metadata']['schema']}.{finding['metadata']['name']}")
        for finding in json.loads(found.out)
    }
    # Which indexes were used depends on what happened since.
    assert {finding for finding in findings if finding[0] != "unused_index"} == ANSWERED


def test_every_finding_is_answered() -> None:
    _, _, page = (PROJECT / "docs" / "access.md").read_text(encoding="utf-8").partition("linter says\n")
    for name, level, thing in ANSWERED:
        assert re.search(rf"^\| `{name}` .*\| {level} \| .*`{thing}(\(\))?`", page, flags=re.MULTILINE), (name, thing)
    for name in BEHIND:
        assert f"`{name.removeprefix('oblivion.')}()`" in page
