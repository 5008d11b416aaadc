"""Runs of pgbench with the CPU time that the server spent on them.

Clocks depend on the disk and on whatever else the machine does; the CPU time of the server's processes depends less on
both.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, Self

import psutil
from common import CLIENTS, WARM, cursor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from common import Database
    from psycopg2.extensions import cursor as Cursor  # noqa: N812 - the class, beside our function of that name

OWN_BACKEND: Final = """
SELECT
  pg_backend_pid(), coalesce(inet_server_addr() <<= inet '127.0.0.0/8' OR inet_server_addr() = inet '::1', true)
"""
WAITING: Final = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND NOT granted AND (classid, objid, objsubid) = (0, %s, 1)
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
POLL: Final = 0.01  # seconds


class Run(NamedTuple):
    """What a run took."""

    rate: float
    """Transactions, or rows, in a second."""
    cpu: float | None
    """Seconds of CPU time of the server for each of them; None if the server is on another machine."""

    def of(self, parts: int) -> Run:
        """The same run, if each transaction did so many parts."""
        return Run(parts * self.rate, None if self.cpu is None else self.cpu / parts)

    def mean(self, other: Run) -> Run:
        """This run and another of as many transactions, together."""
        cpu = None if self.cpu is None or other.cpu is None else (self.cpu + other.cpu) / 2
        return Run(2 / (1 / self.rate + 1 / other.rate), cpu)


class Server:
    """The processes of the server that `sql` is connected to, without those of `sql` and of autovacuum.

    Autovacuum is left out because it is chance which of two runs it falls into.
    """

    def __init__(self, sql: Cursor) -> None:
        sql.execute(OWN_BACKEND)
        self.own, is_here = sql.fetchone() or (0, False)
        self.postmaster: psutil.Process | None = None
        with suppress(psutil.NoSuchProcess):
            backend = psutil.Process(self.own) if is_here else None
            if backend and "postgres" in backend.name():  # else the server is in a container
                self.postmaster = backend.parent()

    def times(self) -> dict[int, float]:
        """CPU seconds of each process, by its id; empty if the server is on another machine."""
        times = {}
        for process in self.postmaster.children() if self.postmaster else ():
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                if process.pid != self.own and "autovacuum worker" not in " ".join(process.cmdline()):
                    times[process.pid] = _seconds(process)
        return times


def _seconds(process: psutil.Process) -> float:
    if sys.platform == "linux":
        with suppress(FileNotFoundError):  # a kernel without it
            return int(Path(f"/proc/{process.pid}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    times = process.cpu_times()
    return times.user + times.system


def _spent(before: dict[int, float], after: dict[int, float]) -> float | None:
    """CPU seconds of the processes that were there before and after; None if nothing could be measured."""
    both = before.keys() & after.keys()
    return sum(after[pid] - before[pid] for pid in both) if both else None


class Rounds:
    """A run of pgbench, whose clients wait for each other before each round and after the last; a context.

    Only the rounds are measured: neither `WARM` transactions of each client before them, nor what is between them. So
    two runs can take turns.
    """

    def __init__(
        self,
        database: Database,
        script: Sequence[str],
        transactions: int,
        rounds: int,
        *options: str,
        clients: int = CLIENTS,
    ) -> None:
        self.database, self.transactions, self.rounds, self.clients = database, transactions, rounds, clients
        self.gate = 0
        self.cpu: float | None = 0
        gates = (
            rf"\set gate :t - {WARM}",
            rf"\if :gate >= 0 and :gate % {transactions} = 0",
            rf"\set gate :gate / {transactions}",
            "SELECT pg_advisory_xact_lock_shared(:gate);",
            r"\endif",
        )
        variables = ("-D", "t=0", "-D", f"warm={WARM}", "-D", f"transactions={transactions}", "--exit-on-abort")
        self.each = WARM + rounds * transactions
        script = (r"\set t :t + 1", *script, *gates)
        self.command = database.command(script, self.each, *variables, *options, clients=clients)
        self.open = ExitStack()

    def __enter__(self) -> Self:
        """Start pgbench, and wait until its clients are warm."""
        with ExitStack() as undo:
            self.sql = undo.enter_context(cursor(self.database.url))
            self.server = Server(self.sql)
            self.sql.execute("SELECT pg_advisory_lock(gate) FROM generate_series(0, %s) AS gate", (self.rounds,))
            pipe = subprocess.PIPE
            self.process = undo.enter_context(subprocess.Popen(self.command, stdout=pipe, stderr=pipe, text=True))
            undo.callback(self.process.kill)
            self._gather()
            self.open = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """End pgbench, also in the middle of a round."""
        self.open.close()

    def round(self) -> None:
        """Let each client run its transactions of one round."""
        times = self.server.times()
        self._release()
        self._gather()
        spent = _spent(times, self.server.times())
        self.cpu = None if self.cpu is None or spent is None else self.cpu + spent

    def result(self) -> Run:
        """What all rounds took; ends the program if pgbench failed."""
        self._release()
        out, err = self.process.communicate()
        if self.process.returncode or f"processed: {self.clients * self.each}/" not in out:
            sys.exit(err or out)
        # A round's last transaction waits for the other clients, so it is not counted.
        starts = range(WARM - 1, self.each - 1, self.transactions)
        rate = sum(
            self.rounds * (self.transactions - 1) / sum(ends[at + self.transactions - 1] - ends[at] for at in starts)
            for ends in self.database.ends()
        )
        return Run(rate, None if self.cpu is None else self.cpu / (self.clients * self.rounds * self.transactions))

    def _release(self) -> None:
        """Open the gate at which the clients wait."""
        self.sql.execute("SELECT pg_advisory_unlock(%s)", (self.gate,))
        self.gate += 1

    def _gather(self) -> None:
        """Wait until all clients wait at the next gate."""
        while self.process.poll() is None:
            self.sql.execute(WAITING, (self.gate,))
            if self.sql.fetchone() == (self.clients,):
                return
            time.sleep(POLL)
        out, err = self.process.communicate()
        sys.exit(err or out)


def alone(run: Rounds) -> Run:
    """Let one run do its rounds."""
    with run:
        for _ in range(run.rounds):
            run.round()
        return run.result()


def alternate(ours: Rounds, base: Rounds) -> tuple[Run, Run]:
    """Let two runs of as many rounds take turns, round by round."""
    with ours, base:
        for _ in range(ours.rounds):
            ours.round()
            base.round()
        return ours.result(), base.result()


def timed(database: Database, work: Callable[[Cursor], None], amount: int) -> Run:
    """Let `work` do `amount` rows, in a connection of its own, right after a checkpoint."""
    with cursor(database.url) as sql, cursor(database.url) as worker:
        server = Server(sql)
        sql.execute("CHECKPOINT")
        times, start = server.times(), time.perf_counter()
        work(worker)
        seconds = time.perf_counter() - start
        cpu = _spent(times, server.times())
    return Run(amount / seconds, None if cpu is None else cpu / amount)
