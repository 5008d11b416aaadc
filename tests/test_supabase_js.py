"""The deployed pages, played by the real supabase-js through PostgREST's protocol: supabase_js/ holds what they do."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from npm import packages
from support import API_ROLES, PROJECT, execute, query, run

if TYPE_CHECKING:
    from collections.abc import Iterator
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


@pytest.mark.parametrize("script", ["pages", "billing"])
@pytest.mark.parametrize("access", ["open", "authenticated"])
@pytest.mark.full
def test_pages_get_what_the_access_mode_gives_them(
    access: str, script: str, upgraded: URL, api_login: URL, tmp_path: Path
) -> None:
    assert run("access", access, url=upgraded).status == 0
    granted = query(upgraded, GRANTS)
    # Node looks for node_modules above a script, and none is to be in the checkout.
    shutil.copytree(SCRIPTS, tmp_path, dirs_exist_ok=True)
    (tmp_path / "node_modules").symlink_to(packages(SCRIPTS), target_is_directory=True)
    ended = subprocess.run(
        [
            "node",
            "--test",
            "--test-reporter=spec",
            "--test-timeout=60000",
            f"{access if script == 'pages' else script}.test.mjs",
        ],
        cwd=tmp_path,
        env=os.environ
        | {
            "MODE": access,
            "PGHOST": str(api_login.query.get("host") or api_login.host),
            "PGPORT": str(api_login.port),
            "PGUSER": str(api_login.username),
            "PGPASSWORD": str(api_login.password),
            "PGDATABASE": str(api_login.database),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if ended.returncode:
        pytest.fail(f"{ended.stdout}{ended.stderr}", pytrace=False)
    assert query(upgraded, GRANTS) == granted, "what the pages were tested on is not what the revisions grant"
