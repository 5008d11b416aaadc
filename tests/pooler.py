"""A PgBouncer before the tests' server, where Debian's package, or another, is installed."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError
from support import temporary_home, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

PROGRAM: Final = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
REASON: Final = "PgBouncer is not installed (Debian's package is pgbouncer)"
needs_pooler: Final = pytest.mark.skipif(PROGRAM is None, reason=REASON)


@contextmanager
def pooled(url: URL, mode: Literal["transaction", "session"], **settings: str) -> Iterator[URL]:
    """The URL of the database of `url` through a PgBouncer in that mode, which is stopped at the end."""
    assert PROGRAM is not None
    home = temporary_home()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    host = url.query.get("host") or url.host or "localhost"
    password = f" password={url.password}" if url.password else ""
    (home / "users.txt").write_text(f'"{url.username}" "{url.password or ""}"\n')
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "auth_type": "any",
        "auth_file": str(home / "users.txt"),
        "pool_mode": mode,
        "unix_socket_dir": "",
        "client_login_timeout": "5",
        "server_login_retry": "1",
        "ignore_startup_parameters": "extra_float_digits",
    } | settings
    target = f"host={host} port={url.port or 5432} dbname={url.database} user={url.username}{password}"
    written = "\n".join(f"{name} = {value}" for name, value in lines.items())
    (home / "pgbouncer.ini").write_text(f"[databases]\n{url.database} = {target}\n\n[pgbouncer]\n{written}\n")
    as_user = {}
    through = url.set(host="127.0.0.1", port=port, query={})
    if os.geteuid() == 0:  # it refuses to run as root; the server's own user may pass through the socket's folder
        as_user["user"] = Path(str(host)).stat().st_uid if str(host).startswith("/") else "nobody"
    with (home / "log").open("w") as log:
        server = subprocess.Popen([PROGRAM, home / "pgbouncer.ini"], stdout=log, stderr=log, **as_user)  # type: ignore[call-overload]
    _RUNNING[port] = home / "pgbouncer.ini", server

    def answers() -> bool:
        assert server.poll() is None, (home / "log").read_text()
        try:
            create_engine(through).connect().close()
        except SQLAlchemyError:
            return False
        return True

    try:
        wait_until(answers)
        yield through
    finally:
        del _RUNNING[port]
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)
        shutil.rmtree(home)


_RUNNING: Final[dict[int, tuple[Path, subprocess.Popen[bytes]]]] = {}


def repoint(through: URL, line: str) -> None:
    """Give the pooler another line of its [databases], for the user of `through`, and let it read that."""
    file, server = _RUNNING[through.port or 0]
    before, _, rest = file.read_text().partition("[databases]\n")
    user = f" user={through.username}"
    file.write_text(f"{before}[databases]\n{line}{user}\n{rest.partition(chr(10))[2]}")
    server.send_signal(signal.SIGHUP)
