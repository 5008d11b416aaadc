"""What commands say on stderr: lines, and on a terminal one that is written again and again while work takes long.

Also what becomes of a command whose stdout nobody reads any more.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Final

from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

APPLICATION: Final = "oblivion-schema"
"""Name of our sessions in pg_stat_activity. A statement that works block by block appends a colon and how far it is."""

_SECONDS: Final = 0.5
_UNREAD: Final = 141
"""Exit status of a program that SIGPIPE ended."""
_ERASE: Final = "\r\x1b[K"
_terminal: Final = Lock()
_drawn = False


def clear() -> None:
    """Erase the line, before something else is written to the terminal."""
    with _terminal:
        _erase()


def say(line: str) -> None:
    """Write a line for the user to stderr; stdout has the command's output."""
    clear()
    sys.stderr.write(f"{line}\n")


@contextmanager
def while_read() -> Iterator[None]:
    """Within this context, the process ends without a word once nobody reads its stdout, as before `| head`."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the last flush would complain
        sys.exit(_UNREAD)


def _erase() -> None:
    global _drawn  # noqa: PLW0603 - a process has one terminal
    if _drawn:
        sys.stderr.write(_ERASE)
        sys.stderr.flush()
        _drawn = False


def draw(line: str) -> None:
    """Write the line again, on a terminal alone."""
    global _drawn  # noqa: PLW0603 - as above
    if not sys.stderr.isatty():
        return
    with _terminal:
        sys.stderr.write(_ERASE + line[: shutil.get_terminal_size().columns - 1])
        sys.stderr.flush()
        _drawn = True


@contextmanager
def shown(label: str, connection: Connection | None = None) -> Iterator[None]:
    """Within this context, show on the terminal what the session of `connection` does, and since when.

    A connection of its own asks for that. Where it gets none, the line says only how long the work takes.
    """
    if not sys.stderr.isatty():
        yield
        return
    pid = None
    if connection is not None:
        began = connection.in_transaction()
        pid = connection.scalar(text("SELECT pg_backend_pid()"))
        if not began:
            connection.rollback()
    ended = Event()
    engine = connection.engine if connection is not None else None
    thread = Thread(target=_watch, args=(ended, label, engine, pid), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)
        clear()


def _watch(ended: Event, label: str, engine: Engine | None, pid: int | None) -> None:
    began = time.monotonic()
    watcher: Connection | None = None
    if engine is not None:
        with suppress(SQLAlchemyError):
            own = create_engine(engine.url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            watcher = own.connect()
    while not ended.wait(_SECONDS):
        doing = None
        if watcher is not None:
            with suppress(SQLAlchemyError):
                doing = watcher.scalar(text(_DOES), {"pid": pid, "prefix": f"{APPLICATION}: "})
        line = f"{label}, {time.monotonic() - began:.0f} s"
        if not ended.is_set():
            draw(f"{line}: {doing}" if doing else line)
    if watcher is not None:
        with suppress(SQLAlchemyError):
            watcher.close()


# A terminal is narrow, so the statement comes last, without the comment above it. The first lines of a DO block say
# little.
_DOES: Final = """
SELECT concat_ws(
  ', ',
  p.phase,
  CASE
    WHEN p.blocks_total > 0 THEN format('%s of %s pages', p.blocks_done, p.blocks_total)
    WHEN p.tuples_total > 0 THEN format('%s of %s rows', p.tuples_done, p.tuples_total)
    WHEN p.lockers_total > 0 THEN format('%s of %s sessions', p.lockers_done, p.lockers_total)
  END,
  CASE WHEN a.wait_event_type = 'Lock' AND p.pid IS NULL THEN 'waits for a lock' END,
  CASE
    WHEN starts_with(a.application_name, :prefix) THEN substr(a.application_name, length(:prefix) + 1)
    WHEN statement !~ '^DO ' THEN left(regexp_replace(statement, '\\s+', ' ', 'g'), 100)
  END
)
FROM pg_stat_activity AS a
CROSS JOIN LATERAL regexp_replace(a.query, '^\\s*(--[^\n]*\n\\s*)+', '') AS s (statement)
LEFT JOIN pg_stat_progress_create_index AS p ON p.pid = a.pid
WHERE a.pid = :pid AND a.state <> 'idle'
"""
