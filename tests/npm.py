"""Packages of npm that tests run."""

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

if TYPE_CHECKING:
    from pathlib import Path


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
