"""Deployers take turns: one at a time holds the advisory lock of a database."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Select

ADVISORY_LOCK: Final = 0x0B11_1710_5C4E_3A00
"""Key of the advisory lock that a run holds in its transaction."""

_POLL_SECONDS: Final = 0.1


@contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Hold the deployers' lock on a connection in autocommit."""
    attempt = select(func.pg_try_advisory_lock(ADVISORY_LOCK))
    _poll(connection, attempt)
    try:
        yield
    finally:
        with suppress(SQLAlchemyError):  # a connection that is gone has given it back
            connection.execute(select(func.pg_advisory_unlock(ADVISORY_LOCK)))


def wait_for_other_deployers(connection: Connection) -> None:
    """Hold the deployers' lock until the transaction ends; one of them at a time."""
    # Polled: a waiter that blocked would hold a snapshot, for which CREATE INDEX CONCURRENTLY waits in its turn.
    # In the transaction: a pooler may hand a lock of the session to somebody else.
    _poll(connection, select(func.pg_try_advisory_xact_lock(ADVISORY_LOCK)))


def _poll(connection: Connection, attempt: Select[bool]) -> None:
    if connection.scalar(attempt):
        return
    say("Another upgrade is running on this database: waiting until it ends.")
    while not connection.scalar(attempt):
        time.sleep(_POLL_SECONDS)


def say(line: str) -> None:
    """Tell whoever runs the command, beside what it prints."""
    sys.stderr.write(f"{line}\n")
