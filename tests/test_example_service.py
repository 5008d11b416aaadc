"""examples/service is what its README says: its tests pass, and its console shows what the service answers."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import pytest
from support import PROJECT, execute, libpq

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import URL

pytestmark = pytest.mark.full

EXAMPLE: Final = PROJECT / "examples" / "service"
README: Final = (EXAMPLE / "README.md").read_text(encoding="utf-8")
BLOCKS: Final = re.findall(r"^```(\w+)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
INSTALL, UPGRADE, SERVE = (code for kind, code in BLOCKS if kind == "sh")
[ROLE] = (code for kind, code in BLOCKS if kind == "sql")
[CONSOLE] = (code for kind, code in BLOCKS if kind == "console")
STEPS: Final = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", CONSOLE, flags=re.MULTILINE)
OWNER: Final = "postgresql://owner:password@localhost/calls"
SERVICE: Final = "postgresql+asyncpg://calls:secret@localhost/calls"
ITS_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A copy of the example."""
    copied = tmp_path / "service"
    shutil.copytree(EXAMPLE, copied, ignore=shutil.ignore_patterns(".venv", "__pycache__"))
    return copied


@pytest.fixture
def role(server: URL) -> Iterator[str]:
    """A name for the role of the service, which is dropped with what it has."""
    name = f"calls_{uuid4().hex[:8]}"
    yield name
    execute(server, f"DROP ROLE IF EXISTS {name}")


def ran(place: Path, script: str) -> str:
    """What a script of the README prints in `place`, with the programs of this environment."""
    its = re.sub(r"\.venv/bin/([\w-]+)", lambda name: f"{sys.executable} -m {name[1].replace('-', '_')}", script)
    printed = place / "printed"
    variables = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    with printed.open("w") as file:
        ended = subprocess.run(
            ["bash", "-euc", its], cwd=place, env=variables, stdout=file, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ended.returncode == 0, f"{printed.read_text()}{ended.stderr}"
    return printed.read_text()


def test_ci_installs_it_as_its_readme_says() -> None:
    ci = [line.strip() for line in (PROJECT / ".ci" / "run").read_text(encoding="utf-8").splitlines()]
    assert [line for line in INSTALL.splitlines() if line not in ci] == []


@pytest.mark.server
def test_its_tests_pass(place: Path) -> None:
    assert re.search(r"^\d\d passed", ran(place, ".venv/bin/pytest -q -p no:cacheprovider"), flags=re.MULTILINE)


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("openssl")), reason="no curl or no openssl")
def test_console_shows_what_it_answers(place: Path, new_database: Callable[..., URL], role: str) -> None:
    owner = new_database()
    ran(place, UPGRADE.replace(OWNER, f"'{libpq(owner)}'"))
    execute(owner, ROLE.replace("ROLE calls", f"ROLE {role}"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = owner.set(drivername="postgresql+asyncpg", username=role, password="secret")
    serve = SERVE.replace(SERVICE, f"'{url.render_as_string(hide_password=False)}'").rstrip()
    waits = f"curl -s --retry 50 --retry-delay 1 --retry-connrefused localhost:{port} > answered"
    its_id = '$(grep -ao \'"session_id":"[^"]*\' printed | head -n 1 | cut -c 15-)'
    commands = "".join(
        f"{ITS_ID.sub(its_id, command).replace('localhost:8000', f'localhost:{port}')}\nprintf '\\0'\n"
        for command, _ in STEPS
    )
    script = f"{serve} --port {port} --log-level warning &\ntrap 'kill $!' EXIT\n{waits}\n{commands}"
    answers = ran(place, script).split("\0")[:-1]
    assert len(answers) == len(STEPS) >= 10
    for (command, shown), answered in zip(STEPS, answers, strict=True):
        assert ITS_ID.sub("<id>", answered) == ITS_ID.sub("<id>", shown), command
