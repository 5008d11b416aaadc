"""`python -m oblivion_schema.fleet.child COMMAND`: a command on one site of a fleet, in a process of its own.

The first line of stdin names the database, so that its password is neither among the arguments nor in the environment.
Then stdin stays open as long as the command is wanted. Once it is closed, because the fleet was told to stop or because
its process is gone, the command is interrupted, as by Ctrl-C, and PostgreSQL rolls back.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import sys
import time
from threading import Thread, main_thread

from oblivion_schema import cli
from oblivion_schema.errors import interrupted
from oblivion_schema.server.database import parse

_PATIENCE = 5
"""Seconds until it is interrupted again, and then ended: a signal between two statements may be lost."""


def _watch() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    for _ in range(2):
        _interrupt()
        time.sleep(_PATIENCE)
    os._exit(130)


def _interrupt() -> None:
    thread = main_thread().ident
    if os.name == "posix" and thread is not None:
        signal.pthread_kill(thread, signal.SIGINT)  # also a wait in libpq hears it
    else:
        _thread.interrupt_main()


def main() -> None:
    """Run the command of the arguments."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it otherwise
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        sys.exit(130)  # whoever started it is gone already
    given = json.loads(line)
    try:
        Thread(target=_watch, daemon=True).start()
        cli.main(sys.argv[1:], parse(given["url"], given["source"]))
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(f"FAILED: {interrupted()}\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
