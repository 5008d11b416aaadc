"""examples/page, in a real browser."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from npm import libpq_variables, scripts
from support import PROJECT, query

from oblivion_schema.testing import pass_time

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL, Engine

PAGE = PROJECT / "examples" / "page" / "index.html"


@pytest.mark.full
def test_page_shows_the_balance_fall_and_ends_its_call(
    upgraded: URL, engine: Engine, api_login: URL, tmp_path: Path
) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium here")
    log = tmp_path / "stderr"
    with (
        log.open("w", encoding="utf-8") as stderr,
        subprocess.Popen(
            ["node", "page.mjs"],
            cwd=scripts(tmp_path),
            env=os.environ | libpq_variables(api_login) | {"CHROMIUM": chromium, "PAGE": str(PAGE)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as script,
    ):
        assert script.stdin
        assert script.stdout
        for line in script.stdout:
            asked = json.loads(line)
            pass_time(engine, UUID(asked["call"]), timedelta(minutes=asked["minutes"]))
            script.stdin.write("\n")
            script.stdin.flush()
    assert script.returncode == 0, log.read_text(encoding="utf-8")
    assert query(upgraded, "SELECT * FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0") == []
