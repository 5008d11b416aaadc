"""What pages in TypeScript get, clients/js: the types of the database, and the client of metered calls."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest
import typescript
from npm import CLIENT, play, scripts
from support import PROJECT, query, run

import oblivion_schema

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL


@pytest.mark.full
def test_types_are_what_the_database_has(upgraded: URL, tmp_path: Path) -> None:
    types = typescript.generated(upgraded, tmp_path)
    assert typescript.TYPES.read_text(encoding="utf-8") == types, f"run {typescript.COMMAND}"


@pytest.mark.full
def test_compiler_takes_what_pages_do_and_refuses_what_would_fail(tmp_path: Path) -> None:
    folder = scripts(tmp_path)
    tsc = tmp_path / "node_modules" / ".bin" / "tsc"
    ended = subprocess.run([tsc, "-p", folder], capture_output=True, text=True, check=False, timeout=120)
    assert (ended.returncode, ended.stdout) == (0, "")


@pytest.mark.parametrize("access", ["open", "authenticated"])
@pytest.mark.full
def test_client_bills_what_it_shall(access: str, upgraded: URL, api_login: URL, tmp_path: Path) -> None:
    assert run("access", access, url=upgraded).status == 0
    play("client", api_login, tmp_path, MODE=access)
    assert query(upgraded, "SELECT * FROM oblivion.balance_audit WHERE drift <> 0 OR gaps <> 0") == []


@pytest.mark.full
def test_package_has_what_it_names_and_no_more(tmp_path: Path) -> None:
    folder = scripts(tmp_path) / "node_modules" / "oblivion-schema-client"
    packed = subprocess.run(
        ["npm", "pack", "--dry-run", "--json"], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    files = {file["path"] for file in json.loads(packed.stdout)[0]["files"]}
    assert files == {"LICENSE", "README.md", "database.d.ts", "index.d.ts", "index.js", "package.json"}


def test_package_has_the_version_and_the_license_of_the_schema() -> None:
    assert json.loads((CLIENT / "package.json").read_text(encoding="utf-8"))["version"] == oblivion_schema.__version__
    assert (CLIENT / "LICENSE").read_bytes() == (PROJECT / "LICENSE").read_bytes()
