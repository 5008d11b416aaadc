"""`supabase db push`, by the real CLI, to a server of the tests."""

from __future__ import annotations

import os
import select
import shutil
import socket
import socketserver
import subprocess
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npm import packages
from support import PROJECT, Result, libpq

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from sqlalchemy import URL


class _Relay(socketserver.BaseRequestHandler):
    """A connection by TCP, handed on to the server."""

    server: _Door

    def handle(self) -> None:
        with self.server.connect() as database:
            other = {self.request: database, database: self.request}
            while True:
                for end in select.select(list(other), [], [])[0]:
                    data = end.recv(65536)
                    if not data:
                        return
                    other[end].sendall(data)


class _Door(socketserver.ThreadingTCPServer):
    daemon_threads = True

    def __init__(self, database: URL) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.host = str(database.query.get("host") or database.host or "localhost")
        self.number = database.port or 5432

    def connect(self) -> socket.socket:
        if not self.host.startswith("/"):
            return socket.create_connection((self.host, self.number))
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(f"{self.host}/.s.PGSQL.{self.number}")
        return connection


@contextmanager
def by_tcp(url: URL) -> Iterator[URL]:
    """`url` as the CLI takes it, which knows no Unix sockets: on a loopback port, relayed to the server."""
    with _Door(url) as door:
        thread = threading.Thread(target=door.serve_forever, args=(0.01,))
        thread.start()
        try:
            port = door.server_address[1]
            yield url.set(host="127.0.0.1", port=port, query={}, password=url.password or "none")
        finally:
            door.shutdown()
            thread.join()


@dataclass(frozen=True)
class SupabaseCLI:
    """The program, and a home of its own."""

    program: Path
    home: Path

    @classmethod
    def at_home_in(cls, home: Path) -> SupabaseCLI:
        """The program that npm gives, told to report to nobody. Skips the test where npm cannot give it."""
        cli = cls(packages(PROJECT / "tests" / "supabase_cli") / ".bin" / "supabase", home)
        assert cli.run("telemetry", "disable", folder=home).status == 0
        return cli

    def run(self, *arguments: str, folder: Path) -> Result:
        """Run it in `folder`; there is nobody whom it could reach but a server on this machine."""
        nobody = "http://127.0.0.1:9"
        ended = subprocess.run(
            [self.program, *arguments],
            cwd=folder,
            # Of this process's environment nothing: no token, and no other project.
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "DO_NOT_TRACK": "1",
                "SUPABASE_TELEMETRY_DISABLED": "1",
                "SUPABASE_NO_UPDATE_NOTIFIER": "1",
                "PGSSLMODE": "disable",
                "HTTP_PROXY": nobody,
                "HTTPS_PROXY": nobody,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Result(ended.returncode, ended.stdout, ended.stderr)


@dataclass(frozen=True)
class Project:
    """A folder with migrations for the CLI."""

    cli: SupabaseCLI
    folder: Path

    @property
    def migrations(self) -> Path:
        """Where the CLI looks for SQL files."""
        return self.folder / "supabase" / "migrations"

    def hold(self, files: Iterable[Path]) -> None:
        """Have these files for migrations."""
        self.migrations.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, self.migrations)

    def push(self, url: URL, *options: str) -> Result:
        """Push the migrations to a database, of `by_tcp()`."""
        return self.cli.run("db", "push", "--yes", f"--remote={libpq(url)}", *options, folder=self.folder)
