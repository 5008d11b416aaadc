"""Commands on sites: some processes, each of which works on one site at a time, until all sites are over.

A process is told to stop by closing its stdin, which the death of this process does, too: `fleet/worker.py`. It has no
terminal, so that Ctrl-C reaches it this way alone. If it dies, its site fails, and the next site gets a new process.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO

    from oblivion_schema.fleet.report import Report
    from oblivion_schema.fleet.sites import Site

_LOOK_SECONDS: Final = 0.2
_PATIENCE: Final = 15
"""Seconds for a process to end; it ends itself before, even if it works."""
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_MARK: Final = b"\0ended "
_STREAMS: Final = 2


@dataclass(eq=False)
class _Worker:
    """A process, and the site that it works on."""

    process: subprocess.Popen[bytes]
    name: str = ""
    began: float = 0
    marks: int = 0
    """Streams on which the command has ended."""
    ends: int = 0
    """Streams that have ended."""

    def close(self) -> None:
        """Tell it to stop, or that there is nothing more to do."""
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()


class Runner:
    """Runs commands on sites, `jobs` at a time, and tells the report what they say. A context, whose end stops all."""

    def __init__(self, jobs: int, report: Report) -> None:
        self.jobs, self.report = jobs, report
        self.stopped: int | None = None
        """The signal that said to stop."""
        self._times_told = 0
        self._heard: SimpleQueue[tuple[_Worker, bytes | None, bool]] = SimpleQueue()
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        """From now on a signal stops the runs, and nothing else; a second one does not wait for them."""
        # Python hears signals in the main thread alone.
        is_main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._stop) for number in _SIGNALS} if is_main else {}
        return self

    def __exit__(self, *_: object) -> None:
        """Let the processes end."""
        for worker in self._workers:
            worker.close()
        for worker in self._workers:
            try:
                worker.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                worker.process.kill()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, sites: Sequence[Site], arguments: Sequence[str], *, is_last: bool = True) -> bool:
        """Run the command on all of them; whether it ended well on each. If not `is_last`, such a site is not over."""
        waiting = deque(sites)
        is_well = True
        told = 0
        while self._busy() or (waiting and self.stopped is None):
            while waiting and len(self._busy()) < self.jobs and self.stopped is None:
                is_well &= self._start(waiting.popleft(), arguments)
            if told < self._times_told:
                told = self._times_told
                self._tell_to_stop()
            if self._busy():
                is_well &= self._hear(is_last=is_last)
        return is_well and not waiting

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.name]

    def _stop(self, number: int, _: object) -> None:
        self.stopped = number
        self._times_told += 1

    def _tell_to_stop(self) -> None:
        for worker in self._busy():
            if self._times_told > 1:
                worker.process.terminate()
            worker.close()

    def _start(self, site: Site, arguments: Sequence[str]) -> bool:
        """Let a process work on the site; False if there is none to be had."""
        idle = [worker for worker in self._workers if not worker.name]
        try:
            worker = idle[0] if idle else self._worker()
        except OSError as error:
            self.report.fail(site.name, f"No process can be started: {error.strerror}. Try again with less --jobs.")
            return False
        worker.name, worker.began, worker.marks = site.name, time.monotonic(), 0
        url = site.database.url.render_as_string(hide_password=False)
        work = {"url": url, "source": site.database.source, "arguments": list(arguments)}
        if worker.process.stdin is not None:
            with suppress(OSError):  # it has died, which its streams tell
                worker.process.stdin.write(json.dumps(work).encode() + b"\n")
                worker.process.stdin.flush()
        return True

    def _worker(self) -> _Worker:
        command = [sys.executable, "-m", "oblivion_schema.fleet.worker"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)  # noqa: S603
        worker = _Worker(process)
        self._workers.append(worker)
        for stream in (process.stdout, process.stderr):
            error = stream is process.stderr
            threading.Thread(target=self._read, args=(worker, stream), kwargs={"error": error}, daemon=True).start()
        return worker

    def _read(self, worker: _Worker, stream: IO[bytes], *, error: bool) -> None:
        with stream:
            for line in stream:
                self._heard.put((worker, line, error))
        self._heard.put((worker, None, error))

    def _hear(self, *, is_last: bool) -> bool:
        """Take what was heard next, or show how far it is; False for a site that did not end well."""
        try:
            worker, line, error = self._heard.get(timeout=_LOOK_SECONDS)
        except Empty:
            self.report.draw(worker.name for worker in self._busy())
            return True
        if line is None:
            worker.ends += 1
            if worker.ends < _STREAMS:
                return True
            status = worker.process.wait()
            worker.close()
            self._workers.remove(worker)
            if not worker.name:
                return True
            if self.stopped is None:
                ended = f"{_name_of(-status)} ended its process" if status < 0 else "Its process ended early"
                said = f"FAILED: {ended}. PostgreSQL rolls back what is not committed."
                self.report.line(worker.name, said, error=True)
            return self._over(worker, status or 1, is_last=is_last)
        if line.startswith(_MARK):
            worker.marks += 1
            return worker.marks < _STREAMS or self._over(worker, int(line.removeprefix(_MARK)), is_last=is_last)
        self.report.line(worker.name, line.decode(errors="replace").rstrip("\r\n"), error=error)
        return True

    def _over(self, worker: _Worker, status: int, *, is_last: bool) -> bool:
        name, worker.name = worker.name, ""
        seconds = time.monotonic() - worker.began
        if status == 0:
            self.report.end(name, "done" if is_last else "not done", seconds)
        else:
            self.report.end(name, "failed" if self.stopped is None else "not done", seconds)
        return status == 0


def _name_of(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"Signal {number}"
