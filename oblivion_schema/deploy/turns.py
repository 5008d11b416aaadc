"""One deployer works on a database at a time: it holds an advisory lock."""

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
"""Key of the advisory lock that a run holds until its transaction ends. Exported SQL files take the same lock."""

BUILDERS_LOCK: Final = ADVISORY_LOCK + 1
"""Key of the advisory lock that an upgrade holds while it builds indexes CONCURRENTLY, before it takes the other."""

_POLL_SECONDS: Final = 0.1


@contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Hold the deployers' lock within this context, on a connection in autocommit."""
    attempt = select(func.pg_try_advisory_lock(ADVISORY_LOCK))
    _poll(connection, attempt)
    try:
        yield
    finally:
        with suppress(SQLAlchemyError):  # if the connection is lost, the server has released the lock
            connection.execute(select(func.pg_advisory_unlock(ADVISORY_LOCK)))


def wait_for_other_deployers(connection: Connection, key: int = ADVISORY_LOCK) -> None:
    """Take the deployers' lock, or that of another key, and hold it until the transaction ends."""
    # Polled, because a waiting statement holds a snapshot, for which the other deployer's CREATE INDEX CONCURRENTLY
    # would wait in turn. A lock of the transaction, because a pooler may give the session to another client.
    _poll(connection, select(func.pg_try_advisory_xact_lock(key)))


def _poll(connection: Connection, attempt: Select[bool]) -> None:
    if connection.scalar(attempt):
        return
    say("Another upgrade is running on this database: waiting until it ends.")
    while not connection.scalar(attempt):
        time.sleep(_POLL_SECONDS)


def say(line: str) -> None:
    """Write a line for the user to stderr; stdout has the command's output."""
    sys.stderr.write(f"{line}\n")
