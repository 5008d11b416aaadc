"""Commands on sites, each in a process of its own, some at a time, until all are over or a signal says to stop.

A process is told to stop by closing its stdin, which the death of this process does, too: `fleet/child.py`. It has no
terminal, so that Ctrl-C reaches it this way alone.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

    from oblivion_schema.fleet.report import Report
    from oblivion_schema.fleet.sites import Site
    from oblivion_schema.server.database import Database

_LOOK_SECONDS: Final = 0.2
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class _Line(NamedTuple):
    name: str
    text: str
    error: bool


class _End(NamedTuple):
    name: str
    status: int
    seconds: float


class Runner:
    """Runs commands on sites, `jobs` at a time, and tells the report what they say."""

    def __init__(self, jobs: int, report: Report) -> None:
        self.jobs, self.report = jobs, report
        self.stopped: int | None = None
        """The signal that said to stop."""
        self._times_told = 0
        self._heard: SimpleQueue[_Line | _End] = SimpleQueue()
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @contextmanager
    def hearing_signals(self) -> Iterator[None]:
        """Within this context a signal stops the runs, and nothing else; a second one does not wait for them."""
        before = {number: signal.signal(number, self._stop) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def run(self, sites: Sequence[Site], arguments: Sequence[str], *, is_last: bool = True) -> bool:
        """Run the command on all of them; whether it ended well on each. If not `is_last`, such a site is not over."""
        waiting = deque(sites)
        is_well = True
        told = 0
        try:
            while self._running or (waiting and self.stopped is None):
                while waiting and len(self._running) < self.jobs and self.stopped is None:
                    self._start(waiting.popleft(), arguments)
                if told < self._times_told:
                    told = self._times_told
                    self._tell_to_stop()
                is_well &= self._hear(is_last=is_last)
        finally:
            self._running_are_told()
        return is_well and not waiting

    def _stop(self, number: int, _: object) -> None:
        self.stopped = number
        self._times_told += 1

    def _tell_to_stop(self) -> None:
        for process in self._running.values():
            if self._times_told > 1:
                process.terminate()
            _close(process.stdin)

    def _running_are_told(self) -> None:
        """After an error of ours nothing goes on unwatched."""
        for process in self._running.values():
            _close(process.stdin)

    def _start(self, site: Site, arguments: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        command = [sys.executable, "-u", "-m", "oblivion_schema.fleet.child", *arguments]
        began = time.monotonic()
        try:
            process = subprocess.Popen(  # noqa: S603 - this program
                command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
            )
        except OSError as error:
            self._heard.put(_Line(site.name, f"FAILED: No process can be started: {error.strerror}.", error=True))
            self._heard.put(_End(site.name, 1, 0))
            return
        self._running[site.name] = process
        if process.stdin is not None:
            with suppress(OSError):  # it has ended already
                process.stdin.write(_first_line(site.database))
                process.stdin.flush()
        threading.Thread(target=self._follow, args=(site.name, process, began), daemon=True).start()

    def _follow(self, name: str, process: subprocess.Popen[bytes], began: float) -> None:
        errors = threading.Thread(target=self._read, args=(name, process.stderr), kwargs={"error": True}, daemon=True)
        errors.start()
        self._read(name, process.stdout, error=False)
        errors.join()
        self._heard.put(_End(name, process.wait(), time.monotonic() - began))

    def _read(self, name: str, stream: IO[bytes] | None, *, error: bool) -> None:
        if stream is None:
            return
        with stream:
            for line in stream:
                self._heard.put(_Line(name, line.decode(errors="replace").rstrip("\r\n"), error))

    def _hear(self, *, is_last: bool) -> bool:
        """Take what was heard next, or show how far it is; False for a site that did not end well."""
        try:
            heard = self._heard.get(timeout=_LOOK_SECONDS)
        except Empty:
            self.report.draw(self._running)
            return True
        if isinstance(heard, _Line):
            self.report.line(heard.name, heard.text, error=heard.error)
            return True
        process = self._running.pop(heard.name, None)
        if process is not None:
            _close(process.stdin)
        if heard.status == 0:
            self.report.end(heard.name, "done" if is_last else "not done", heard.seconds)
            return True
        if self.stopped is not None:
            self.report.end(heard.name, "not done", heard.seconds)
            return False
        if heard.status < 0:
            ended = f"FAILED: {_name_of(-heard.status)} ended its process. PostgreSQL rolls back what is not committed."
            self.report.line(heard.name, ended, error=True)
        self.report.end(heard.name, "failed", heard.seconds)
        return False


def _first_line(database: Database) -> bytes:
    """What `fleet/child.py` reads first."""
    url = database.url.render_as_string(hide_password=False)
    return json.dumps({"url": url, "source": database.source}).encode() + b"\n"


def _name_of(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"Signal {number}"


def _close(stream: IO[Any] | None) -> None:
    if stream is not None:
        with suppress(OSError):
            stream.close()
