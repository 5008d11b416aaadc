"""Which of two databases takes a site's writes while it moves.

The decision is one row. The source commits it together with triggers that refuse writes from then on; the target, whose
triggers refuse them until then, gets the row by replication, after everything that was committed before. So nobody has
to be alive for the target to take over, and at no time do both take writes.

A mark is such a row without the decision: it shows that the target has everything that was committed before it.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.errors import UserError, held_relations, sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Connection

Side = Literal["source", "target"]

SCHEMA: Final = "oblivion_move"
MARKS: Final = f"{SCHEMA}.marks"
_SQL: Final = (Path(__file__).parent / "move" / "fence.sql").read_text(encoding="utf-8")
_TRIGGER: Final = "refuse_writes"
_EVENTS: Final = "BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE"
# A writer that waits for us while we wait for it is left alone for a second, PostgreSQL's deadlock_timeout. The longest
# attempts are for autovacuum, which makes way after that second.
_ATTEMPTS: Final = (100, 200, 400, 800, 1500) * 6
_PAUSE_SECONDS: Final = 0.2
_IN_THE_WAY: Final = {"55P03", "57014", "40P01"}
_IDLE_SECONDS: Final = 15
"""After these the source lets go of the writes by itself, if the machine of the mover vanished."""


class Part(NamedTuple):
    """The part of a database in a move: the same id on both sides."""

    id: str
    side: str
    other: str
    """The other side, as the mover reaches it."""


def make(connection: Connection, move: str, side: Side, other: str) -> None:
    """Make schema `oblivion_move`, for the move with that id."""
    connection.exec_driver_sql(_SQL, execution_options={"no_parameters": True})
    values = {"move": move, "side": side, "other": other}
    connection.execute(text("INSERT INTO oblivion_move.move VALUES (:move, :side, :other)"), values)


def drop(connection: Connection) -> None:
    """Drop schema `oblivion_move`, whose triggers must be gone."""
    connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")


def drop_triggers(connection: Connection, tables: Sequence[str]) -> None:
    """Drop the triggers."""
    for table in tables:
        connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {_TRIGGER} ON {table}")


def close_target(connection: Connection, tables: Sequence[str]) -> None:
    """Let the target refuse writes until it has the decision; not those of replication."""
    for table in tables:
        connection.exec_driver_sql(_trigger(table, "target"))


def open_target(connection: Connection, tables: Sequence[str]) -> None:
    """Drop the triggers of a target that has the decision. `connection` is in autocommit."""
    for table in tables:
        with _short_of_a_deadlock(connection, f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"):
            drop_triggers(connection, [table])


@contextmanager
def writes_held(connection: Connection, tables: Sequence[str]) -> Iterator[float]:
    """Hold all writes to the source within this context, whose end lets them go; since when, by time.monotonic().

    `connection` is in autocommit; within the context it is in the transaction that holds them. Raises UserError if
    other transactions are in the way for half a minute.
    """
    statement = f"LOCK TABLE {', '.join(tables)} IN SHARE ROW EXCLUSIVE MODE"
    with _short_of_a_deadlock(connection, statement) as since:
        connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
        yield since


def decide(connection: Connection, tables: Sequence[str]) -> int:
    """Within `writes_held()`, let the target take over when this transaction commits; the number of that mark."""
    for table in tables:
        connection.exec_driver_sql(_trigger(table, "source"))
        # Also where a session disables triggers for replication.
        connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {_TRIGGER}")
    connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
    return mark(connection, is_decision=True)


def mark(connection: Connection, *, is_decision: bool = False) -> int:
    """Write a mark on the source, and return its number."""
    number = connection.scalar(
        text(
            f"INSERT INTO {MARKS} SELECT coalesce(max(number), 0) + 1, :is_decision FROM {MARKS} RETURNING number"  # noqa: S608
        ),
        {"is_decision": is_decision},
    )
    return int(number or 0)


def has_mark(connection: Connection, number: int) -> bool:
    """Whether the target has that mark, and so everything that was committed before it."""
    return bool(connection.scalar(text(f"SELECT true FROM {MARKS} WHERE number = :number"), {"number": number}))  # noqa: S608


def is_made(connection: Connection) -> bool:
    """Whether schema `oblivion_move` is there."""
    return connection.scalar(text(f"SELECT to_regclass('{MARKS}') IS NOT NULL")) is True


def part(connection: Connection, side: Side) -> Part | None:
    """The part of a database in a move, if it is that one."""
    if not is_made(connection):
        return None
    found = connection.execute(text(f"SELECT id::text, side, other FROM {SCHEMA}.move")).one()  # noqa: S608
    return Part(*found) if found.side == side else None


def is_decided(connection: Connection) -> bool:
    """Whether the decision is there."""
    return is_made(connection) and bool(connection.scalar(text(f"SELECT true FROM {MARKS} WHERE is_decision")))  # noqa: S608


def _trigger(table: str, side: str) -> str:
    # The name sorts before those of others; of triggers for one event PostgreSQL fires the first name first.
    return (
        f"CREATE OR REPLACE TRIGGER {_TRIGGER} {_EVENTS} ON {table}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.refuse('{side}')"
    )


@contextmanager
def _short_of_a_deadlock(connection: Connection, lock: str) -> Iterator[float]:
    """A transaction with a lock that is given up and tried again while others are in the way; since when it has it."""
    for milliseconds in _ATTEMPTS:
        since = time.monotonic()
        connection.exec_driver_sql("BEGIN")
        try:
            # A lock_timeout would be for each table.
            connection.exec_driver_sql(f"SET LOCAL statement_timeout = {milliseconds}")
            connection.exec_driver_sql(lock)
            connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            break
        except DBAPIError as error:
            connection.exec_driver_sql("ROLLBACK")
            if sqlstate(error) not in _IN_THE_WAY:
                raise
        time.sleep(_PAUSE_SECONDS)
    else:
        held = "; ".join(f"{relation} is held by {holders}" for relation, holders in held_relations(connection))
        prepared = ", ".join(connection.scalars(text(_PREPARED)))
        also = f"prepared transactions do: {prepared}" if prepared else ""
        said = "; ".join(filter(None, (held, also))) or "many short transactions do"
        raise UserError(f"Other sessions hold the tables: {said}. End the long ones.")
    try:
        yield since
    except BaseException:
        if not connection.invalidated:
            connection.exec_driver_sql("ROLLBACK")
        raise
    connection.exec_driver_sql("COMMIT")


_PREPARED: Final = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared"
