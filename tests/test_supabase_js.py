"""The deployed pages, played by the real supabase-js through PostgREST's protocol: supabase_js/ holds what they do."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from npm import packages
from support import API_ROLES, PROJECT, execute, query, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

SCRIPTS = PROJECT / "tests" / "supabase_js"

GRANTS = """
SELECT relname::text, relacl::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
UNION ALL
SELECT oid::regprocedure::text, proacl::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT defaclrole::regrole::text, defaclacl::text FROM pg_default_acl
UNION ALL
SELECT nspname::text, nspacl::text FROM pg_namespace
ORDER BY 1, 2
"""


@pytest.fixture
def api_login(upgraded: URL, server: URL) -> Iterator[URL]:
    """`upgraded` as PostgREST connects to it: by a role that owns nothing, and may become each of the API's."""
    name = f"{upgraded.database}_api"
    # It inherits, which PostgREST's does not: @supabase/lite sees the tables that its login may use, and no others.
    execute(server, f"CREATE ROLE {name} LOGIN INHERIT PASSWORD '{name}' IN ROLE {', '.join(API_ROLES)}")
    yield upgraded.set(username=name, password=name)
    execute(server, f"DROP ROLE {name}")


def play(script: str, login: URL, folder: Path, **environment: str) -> None:
    """Run a script of `SCRIPTS` as that login; fail with what it printed."""
    # Node looks for node_modules above a script, and none is to be in the checkout.
    shutil.copytree(SCRIPTS, folder, dirs_exist_ok=True)
    (folder / "node_modules").symlink_to(packages(SCRIPTS), target_is_directory=True)
    ended = subprocess.run(
        ["node", "--test", "--test-reporter=spec", "--test-timeout=60000", f"{script}.test.mjs"],
        cwd=folder,
        env=os.environ
        | environment
        | {
            "PGHOST": str(login.query.get("host") or login.host),
            "PGPORT": str(login.port),
            "PGUSER": str(login.username),
            "PGPASSWORD": str(login.password),
            "PGDATABASE": str(login.database),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if ended.returncode:
        pytest.fail(f"{ended.stdout}{ended.stderr}", pytrace=False)


@pytest.mark.parametrize("script", ["pages", "billing"])
@pytest.mark.parametrize("modes", [*itertools.product(["open", "authenticated"], ["trusted", "metered"])], ids="-".join)
@pytest.mark.full
def test_pages_get_what_the_modes_give_them(
    modes: tuple[str, str], script: str, api_login: URL, upgraded: URL, tmp_path: Path
) -> None:
    access, pages = modes
    for switch in (("access", access), ("pages", pages)):
        assert run(*switch, url=upgraded).status == 0
    granted = query(upgraded, GRANTS)
    play(access if script == "pages" else script, api_login, tmp_path, MODE=access, PAGES=pages)
    assert query(upgraded, GRANTS) == granted, "what the pages were tested on is not what the revisions grant"


@pytest.mark.parametrize("access", ["open", "authenticated"])
@pytest.mark.full
def test_metered_pages_get_the_answers_that_they_got_and_pay_for_each_call_once(
    access: str, upgraded: URL, api_login: URL, new_sort: Callable[..., URL], tmp_path: Path
) -> None:
    """Each script of a page is played on the database, and on another that is open and trusts its pages."""
    trusting = new_sort(copy_of=upgraded)
    for switch in (("access", access), ("pages", "metered")):
        assert run(*switch, url=upgraded).status == 0
    play("metered", api_login, tmp_path, MODE=access, TRUSTING=str(trusting.database))
    assert query(upgraded, "SELECT * FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0") == []
    assert query(upgraded, "SELECT * FROM oblivion.billing_incidents") == []
