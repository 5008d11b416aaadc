"""One deployer works on a database at a time: it holds an advisory lock."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError

from oblivion_schema.progress import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Select

ADVISORY_LOCK: Final = 0x0B11_1710_5C4E_3A00
"""Key of the advisory lock that a run holds until its transaction ends. Exported SQL files take the same lock."""

BUILDERS_LOCK: Final = ADVISORY_LOCK + 1
"""Key of the advisory lock that an upgrade holds while it builds indexes CONCURRENTLY, before it takes the other."""

_POLL_SECONDS: Final = 0.1
_LOOK_SECONDS: Final = 1


@contextmanager
def alone(connection: Connection) -> Iterator[None]:
    """Hold the deployers' lock within this context, on a connection in autocommit."""
    attempt = select(func.pg_try_advisory_lock(ADVISORY_LOCK))
    _poll(connection, attempt, ADVISORY_LOCK)
    try:
        yield
    finally:
        with suppress(SQLAlchemyError):  # if the connection is lost, the server has released the lock
            connection.execute(select(func.pg_advisory_unlock(ADVISORY_LOCK)))


def wait_for_other_deployers(connection: Connection, key: int = ADVISORY_LOCK) -> None:
    """Take the deployers' lock, or that of another key, and hold it until the transaction ends."""
    # Polled, because a waiting statement holds a snapshot, for which the other deployer's CREATE INDEX CONCURRENTLY
    # would wait in turn. A lock of the transaction, because a pooler may give the session to another client.
    _poll(connection, select(func.pg_try_advisory_xact_lock(key)), key)


def _poll(connection: Connection, attempt: Select[bool], key: int) -> None:
    if connection.scalar(attempt):
        return
    say("Another upgrade is running on this database: waiting until it ends.")
    named: set[str] = set()
    look_at = time.monotonic() + _LOOK_SECONDS
    while not connection.scalar(attempt):
        time.sleep(_POLL_SECONDS)
        if time.monotonic() >= look_at:
            look_at = time.monotonic() + _LOOK_SECONDS
            # A transaction would go on seeing the sessions that it saw first.
            connection.execute(text("SELECT pg_stat_clear_snapshot()"))
            for process, line in connection.execute(
                text(_HOLDERS), {"high": key >> 32, "low": key & 0xFFFF_FFFF}
            ).all():
                if process not in named:
                    named.add(process)
                    say(line)


# Of other roles' sessions only the role is visible, and of those in no transaction nobody knows whether they go on.
_HOLDERS: Final = """
SELECT
  l.pid,
  format(
    'It is process %s (%s).%s',
    l.pid,
    concat_ws(
      ', ',
      nullif(a.application_name, ''),
      'role ' || a.usename,
      'connected since ' || to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS "UTC"'),
      a.state || ' since ' || to_char(a.state_change AT TIME ZONE 'UTC', 'HH24:MI:SS "UTC"')
    ),
    CASE WHEN a.state LIKE 'idle%' THEN
      format(' If nobody works there, end it: SELECT pg_terminate_backend(%s).', l.pid)
    END
  )
FROM pg_locks AS l
LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.locktype = 'advisory'
  AND l.granted
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND (l.classid::bigint, l.objid::bigint, l.objsubid) = (:high, :low, 1)
ORDER BY l.pid
"""
