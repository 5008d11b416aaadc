"""Packages of npm that tests run, and the scripts of supabase_js/, which run on them."""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import fasteners
import platformdirs
import pytest
from support import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy import URL

CLIENT = PROJECT / "clients" / "js"
SCRIPTS = PROJECT / "tests" / "supabase_js"


@functools.cache
def packages(folder: Path) -> Path:
    """The folder node_modules with what the package.json of `folder` names, in this user's cache: it stays there."""
    if os.environ.get("OBLIVION_TEST_NPM") == "no":
        pytest.skip("OBLIVION_TEST_NPM=no")
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("no node and npm here")
    manifest = folder / "package.json"
    cache = platformdirs.user_cache_path("oblivion-schema", appauthor=False)
    name = f"{folder.name.replace('_', '-')}-{hashlib.sha256(manifest.read_bytes()).hexdigest()[:12]}"
    installed = cache / name
    complete = installed / "complete"
    command = [npm, "install", "--engine-strict", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    try:
        installed.mkdir(parents=True, exist_ok=True)
        with fasteners.InterProcessLock(installed / "lock"):  # other workers want the same
            if not complete.exists():
                shutil.copy(manifest, installed)
                subprocess.run(command, cwd=installed, capture_output=True, text=True, check=True, timeout=300)
                complete.touch()
    except (OSError, subprocess.SubprocessError) as error:
        if "CI" in os.environ:  # where a skipped test would be overlooked
            raise
        said = getattr(error, "stderr", None) or str(error)
        pytest.skip(f"npm cannot install the packages: {said.strip().partition(chr(10))[0]}")
    return installed / "node_modules"


def scripts(folder: Path) -> Path:
    """A copy of `SCRIPTS` in that folder, for which the packages and our client are installed."""
    # Node and tsc look for node_modules above a script, and none is to be in the checkout.
    (folder / "node_modules").symlink_to(packages(SCRIPTS), target_is_directory=True)
    copied = folder / "scripts"
    shutil.copytree(SCRIPTS, copied)
    shutil.copytree(CLIENT, copied / "node_modules" / "oblivion-schema-client")
    return copied


def play(script: str, login: URL, folder: Path, **environment: str) -> None:
    """Run a script of `SCRIPTS` as that login; fail with what it printed."""
    ended = subprocess.run(
        ["node", "--test", "--test-reporter=spec", "--test-timeout=60000", f"{script}.test.mjs"],
        cwd=scripts(folder),
        env=os.environ | environment | libpq_variables(login),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if ended.returncode:
        pytest.fail(f"{ended.stdout}{ended.stderr}", pytrace=False)


def libpq_variables(login: URL) -> dict[str, str]:
    """A login as api.mjs takes it."""
    return {
        "PGHOST": str(login.query.get("host") or login.host),
        "PGPORT": str(login.port),
        "PGUSER": str(login.username),
        "PGPASSWORD": str(login.password),
        "PGDATABASE": str(login.database),
    }
