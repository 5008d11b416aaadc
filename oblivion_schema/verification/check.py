"""One line of the checklist, and how a check that could not be tried becomes one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.errors import one_line, primary_message, sqlstate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sqlalchemy import Connection


class Status(Enum):
    """What a check found. Only FAILED makes `verify` fail; a note is worth reading, and wrong in no way."""

    PASSED = "ok   "
    FAILED = "FAIL "
    NOTE = "note "
    NOT_TRIED = "skip "


@dataclass(frozen=True)
class Check:
    """One line of the checklist: what it is about, and what it found; `says` is empty if the check passed."""

    subject: str
    says: str = ""
    status: Status = Status.PASSED

    @property
    def failed(self) -> bool:
        """Whether the database is not as it should be."""
        return self.status is Status.FAILED

    def __str__(self) -> str:
        return f"{self.status.value} {self.subject}{': ' * bool(self.says)}{one_line(self.says)}"


def result(subject: str, problem: str) -> Check:
    """A check that passed, or that failed with `problem`, which ends with what mends it."""
    return Check(subject, problem, Status.FAILED if problem else Status.PASSED)


def note(subject: str, says: str) -> Check:
    """Something that the operator should know."""
    return Check(subject, says, Status.NOTE)


def not_tried(subject: str, why: str) -> Check:
    """A check that could not be tried, and why."""
    return Check(subject, why, Status.NOT_TRIED)


SHOWN: Final = 5
"""How many of the things that are wrong are named."""


def named(items: Iterable[str], count: int) -> str:
    """The first of `count` things that are wrong, and how many more there are."""
    first = list(items)[:SHOWN]
    more = count - len(first)
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")


def refused(subject: str, error: DBAPIError) -> Check:
    """The line for a check that PostgreSQL refused: it failed, or this role cannot try it."""
    message = primary_message(error)
    match sqlstate(error):
        case "42501":
            return not_tried(subject, f"{message} for this role")
        case "25006":
            return not_tried(subject, "this session is read-only")
        case "55P03":
            return not_tried(subject, f"another session holds a lock ({message}): verify again later")
    return result(subject, message)


def attempt(
    connection: Connection,
    subject: str,
    check: Callable[[Connection], Iterable[Check]],
    refusal: Callable[[str, DBAPIError], Check] = refused,
) -> Iterator[Check]:
    """The lines of `check`, whose changes are rolled back; where PostgreSQL refuses it, the line of `refusal`."""
    try:
        with connection.begin_nested() as savepoint:
            found = list(check(connection))
            savepoint.rollback()
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        found = [refusal(subject, error)]
    yield from found


def lacks(connection: Connection, *names: str) -> str:
    """The first of these relations that the database does not have; empty if it has all of them."""
    full = [name if "." in name else f"public.{name}" for name in names]
    there = set(connection.scalars(text(_THERE), {"names": full}))
    return next((name for name in full if name not in there), "")


_THERE: Final = """
SELECT concat(nspname, '.', relname)
FROM pg_class
JOIN pg_namespace AS n ON n.oid = relnamespace
WHERE concat(nspname, '.', relname) = ANY (CAST(:names AS text[]))
"""


def may_ask(connection: Connection) -> bool:
    """Whether this role may call functions of the private schema."""
    return bool(connection.scalar(text("SELECT has_schema_privilege('oblivion', 'USAGE')")))


def may_write(connection: Connection) -> bool:
    """Whether the session may write at all: not on a standby, and not in a read-only transaction."""
    return bool(connection.scalar(text("SELECT current_setting('transaction_read_only') = 'off'")))
