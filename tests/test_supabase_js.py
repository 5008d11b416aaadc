"""The deployed pages, played by the real supabase-js through PostgREST's protocol: supabase_js/ holds what they do."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from npm import play
from support import query, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sqlalchemy import URL

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
