"""`python interrupted_move.py NUMBER VICTIM ARGUMENTS...`: the command line, with a kill -9 at a moment of a move.

It is the first of the moments from that number on that comes. The victim is the server with that data folder, or this
process: `mover`. The moment is the last line of stdout that begins with `killed: `.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil

from oblivion_schema import cli
from oblivion_schema.fleet import fence, replication
from oblivion_schema.fleet import sites as files

MODULES: Final = {"fence": fence, "replication": replication, "files": files}

# Function, and whether before or after its first call. What comes after a statement is before its transaction commits.
MOMENTS: Final = (
    "before fence.make",
    "after replication.publish",
    "before replication.make_slot",
    "after replication.make_slot",
    "after fence.close_target",
    "after replication.subscribe",
    "before replication.copied",
    "before fence.writes_held",
    "before replication.sums",
    "after replication.set_numbers",
    "after fence.decide",
    "decided",
    "before replication.unsubscribe",
    "after replication.unsubscribe",
    "before fence.open_target",
    "after fence.open_target",
    "before replication.drop_slot",
    "after replication.drop_slot",
    "after replication.unpublish",
    "before files.replace_url",
    "after files.replace_url",
    "before fence.drop",
    "after fence.drop",
)


def kill(victim: str) -> None:
    """Kill a process, or all processes of a server: one that was forked meanwhile would wait for a lock for ever."""
    if victim == "mover":
        os.kill(os.getpid(), signal.SIGKILL)
    while left := [process for process in psutil.process_iter() if works_in(process, Path(victim).resolve())]:
        for process in sorted(left, key=lambda process: process.pid):  # the postmaster first
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.05)


def works_in(process: psutil.Process, folder: Path) -> bool:
    """Whether a process is of the server with that data, which is its working directory."""
    with suppress(psutil.Error, OSError):
        return process.status() != psutil.STATUS_ZOMBIE and Path(process.cwd()) == folder
    return False


def main() -> None:
    number, victim, *arguments = sys.argv[1:]
    wanted = set(MOMENTS[int(number) :])
    is_decided = False

    def come(moment: str) -> None:
        nonlocal wanted
        if moment in wanted:
            wanted = set()
            sys.__stdout__.write(f"killed: {moment}\n")  # type: ignore[union-attr]
            sys.__stdout__.flush()  # type: ignore[union-attr]
            kill(victim)

    def wrapped(name: str, function: Any) -> Any:
        def call(*values: Any, **named: Any) -> Any:
            nonlocal is_decided
            if is_decided and name == "fence.has_mark":
                come("decided")
            come(f"before {name}")
            found = function(*values, **named)
            is_decided |= name == "fence.decide"
            come(f"after {name}")
            return found

        return call

    for name in {moment.partition(" ")[2] for moment in MOMENTS if " " in moment} | {"fence.has_mark"}:
        module, _, attribute = name.partition(".")
        setattr(MODULES[module], attribute, wrapped(name, getattr(MODULES[module], attribute)))
    cli.main(arguments)


if __name__ == "__main__":
    main()
