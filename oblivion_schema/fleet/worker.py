"""`python -m oblivion_schema.fleet.worker`: a process that works on sites of a fleet, one after another.

Each line of stdin names a database and the command for it, so that no password is among the arguments or in the
environment. A line with MARK and the exit status ends what the command wrote to stdout, and to stderr.

stdin stays open as long as the command is wanted. If it is closed meanwhile, because the fleet was told to stop or
because its process is gone, the command is interrupted, as by Ctrl-C, and PostgreSQL rolls back.
"""

from __future__ import annotations

import _thread
import json
import logging
import os
import signal
import sys
import time
import traceback
from contextlib import suppress
from queue import SimpleQueue
from threading import Event, Thread, main_thread
from typing import Any, Final

from oblivion_schema import cli
from oblivion_schema.errors import interrupted
from oblivion_schema.server.database import parse

MARK: Final = "\0ended "
_PATIENCE: Final = 5
"""Seconds until it is interrupted again, and then ended: a signal between two statements may be lost."""

_LOGGERS: Final = ("alembic", "alembic.runtime.plugins", "alembic.util.messaging", "oblivion_schema")

_work: Final[SimpleQueue[dict[str, Any] | None]] = SimpleQueue()
_is_busy: Final = Event()


def _watch() -> None:
    """Take what is to be done from stdin; at its end interrupt what is being done."""
    rest = b""
    while more := os.read(sys.stdin.fileno(), 65536):
        *lines, rest = (rest + more).split(b"\n")
        for line in lines:
            _is_busy.set()
            _work.put(json.loads(line))
    _work.put(None)
    for _ in range(2):
        if not _is_busy.is_set():
            return
        _interrupt()
        time.sleep(_PATIENCE)
    if _is_busy.is_set():
        os._exit(130)


def _interrupt() -> None:
    thread = main_thread().ident
    if os.name == "posix" and thread is not None:
        signal.pthread_kill(thread, signal.SIGINT)  # also a wait in libpq hears it
    else:
        _thread.interrupt_main()


def _run(work: dict[str, Any]) -> int:
    """Run a command, and return its exit status."""
    for logger in _LOGGERS:  # as in a new process
        logging.getLogger(logger).setLevel(logging.NOTSET)
    try:
        cli.main(work["arguments"], parse(work["url"], work["source"]))
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        sys.stderr.write(f"FAILED: {interrupted()}\n")
        return 130
    except Exception:  # noqa: BLE001 - an error of ours is one site's failure
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Work until stdin ends."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it otherwise
    Thread(target=_watch, daemon=True).start()
    with suppress(KeyboardInterrupt):  # it comes too late for what it was meant for
        while (work := _work.get()) is not None:
            status = _run(work)
            _is_busy.clear()
            for stream in (sys.stdout, sys.stderr):
                stream.write(f"{MARK}{status}\n")
                stream.flush()


if __name__ == "__main__":
    main()
