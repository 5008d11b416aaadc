"""Maintenance of metered calls for a scheduler: bill calls of pages, end stale calls, bill what could not be billed.

Each batch is a transaction of its own: its locks are short, and its work stays done if a later batch fails.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from oblivion_schema.billing import burn_calls, reap_stale_calls, settle_calls
from oblivion_schema.errors import UserError, explain, one_line, sqlstate
from oblivion_schema.tables.metering import billing_incidents

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from sqlalchemy import Connection

    from oblivion_schema.billing import CallStatus

_BATCH: Final = 100
# burn_calls() looks at all open calls first.
_BURN_BATCH: Final = 1000
_SHOWN: Final = 20
_UNITS: Final = {"s": "seconds", "m": "minutes", "min": "minutes", "h": "hours", "d": "days"}
_UNDEFINED_FUNCTION: Final = "42883"
_UNDEFINED_SCHEMA: Final = "3F000"


@dataclass
class Tally:
    """Sums over the calls of a run.

    - `calls`: how many calls were ended or billed.
    - `charged`: tokens that were charged.
    - `shortfall`: tokens that no balance covered.
    - `unsettled`: ids of calls whose billing failed; a dict serves as an ordered set.
    """

    calls: int = 0
    charged: int = 0
    shortfall: int = 0
    unsettled: dict[UUID, None] = field(default_factory=dict)

    def add(self, session_id: UUID, status: CallStatus, charged: int, shortfall: int) -> None:
        """Add the result of one call."""
        self.charged += charged
        self.shortfall += shortfall
        if status == "unsettled":
            self.unsettled[session_id] = None
        else:
            self.unsettled.pop(session_id, None)

    def __str__(self) -> str:
        failed = f", {len(self.unsettled)} unsettled" if self.unsettled else ""
        return (
            f"{_calls(self.calls)}: {_tokens(self.charged)} charged, a shortfall of {_tokens(self.shortfall)}{failed}"
        )


def duration(given: str, name: str) -> timedelta:
    """Parse a duration such as 90s, 5m, 2h or 1d. Raises UserError, which names the option `name`."""
    read = re.fullmatch(r"([0-9]{1,6})(s|m|min|h|d)", given)
    if read is None:
        raise UserError(f"{name} {given}: give a number and its unit, s, m, h or d, such as 5m.")
    return timedelta(**{_UNITS[read[2]]: int(read[1])})


def at_most(given: str | None, name: str) -> int | None:
    """Parse a number of calls; None means no limit. Raises UserError, which names the option `name`."""
    if given is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", given) or not int(given):
        raise UserError(f"{name} {given}: give a number of calls above zero, such as 1000.")
    return int(given)


def burn(connection: Connection, max_calls: int | None) -> Tally:
    """Bill all calls of pages that had a heartbeat, at most `max_calls`. Raises UserError if PostgreSQL refuses."""
    tally = Tally()
    burnt: set[UUID] = set()
    try:
        for size in _batches(max_calls, _BURN_BATCH):
            calls = connection.execute(select(burn_calls(size))).all()
            connection.commit()
            ids = {call.session_id for call in calls}
            tally.calls += len(ids - burnt)
            for session_id, status, charged, shortfall in calls:
                tally.add(session_id, status, charged, shortfall)
            # A call that comes a second time had another heartbeat meanwhile: all others had their turn.
            if len(calls) < size or burnt & ids:
                break
            burnt |= ids
    except DBAPIError as error:
        raise _explained(error, connection) from error
    return tally


def reap(
    connection: Connection, not_seen_for: timedelta, pages_not_seen_for: timedelta, max_calls: int | None
) -> Tally:
    """End all stale calls, at most `max_calls`. Raises UserError as `burn()`."""
    tally = Tally()
    try:
        for size in _batches(max_calls):
            stale = reap_stale_calls(not_seen_for, size, pages_not_seen_for=pages_not_seen_for)
            reaped = connection.execute(select(stale)).all()
            connection.commit()
            tally.calls += len(reaped)
            for session_id, status, charged, shortfall, _ in reaped:
                tally.add(session_id, status, charged, shortfall)
            if len(reaped) < size:
                break
    except DBAPIError as error:
        raise _explained(error, connection) from error
    return tally


def settle(connection: Connection, max_calls: int | None) -> Tally:
    """Bill all calls that have ended and are not billed, at most `max_calls`. Raises UserError as `burn()`."""
    tally = Tally()
    try:
        for size in _batches(max_calls):
            settled = connection.execute(select(settle_calls(size))).all()
            connection.commit()
            # settle_calls() returns calls that failed last. A call that comes a second time has failed in this run, and
            # all others were tried: stop.
            seen = tally.unsettled.keys() & {call.session_id for call in settled}
            for session_id, status, charged, shortfall in settled:
                tally.calls += status not in {"unsettled", "ended"}  # ended: another run has billed it
                tally.add(session_id, status, charged, shortfall)
            if seen or len(settled) < size:
                break
    except DBAPIError as error:
        raise _explained(error, connection) from error
    return tally


def reasons(connection: Connection, tally: Tally) -> Iterator[str]:
    """A line for each call whose billing failed, with the reason; for more than 20 calls the rest in one line."""
    incidents = {}
    shown = list(tally.unsettled)[:_SHOWN]
    columns = billing_incidents.c
    noted = select(columns.session_id, columns.message, columns.error_code, columns.attempts, columns.first_at).where(
        columns.session_id.in_(shown), columns.resolved_at.is_(None)
    )
    unknown = "no incident is recorded"
    try:
        incidents = {session_id: incident for session_id, *incident in connection.execute(noted)}
    except DBAPIError as error:
        if sqlstate(error) != "42501":
            raise explain(error, connection.engine) from error
        unknown = "its owner finds the reason in oblivion.billing_incidents"
    for session_id in shown:
        incident = incidents.get(session_id)
        if incident is None:
            yield f"Unsettled: call {session_id}: {unknown}."
            continue
        message, code, attempts, first_at = incident
        since = f"{attempts} time{'s' * (attempts != 1)} since {first_at:%Y-%m-%d %H:%M:%S%z}"
        yield f"Unsettled: call {session_id}: {one_line(message)} ({code}), {since}."
    if more := len(tally.unsettled) - len(shown):
        yield f"Unsettled: {_calls(more)} more; oblivion.billing_incidents has all of them."


def _batches(max_calls: int | None, batch: int = _BATCH) -> Iterator[int]:
    """Sizes of batches that add up to `max_calls`; without it, an endless series."""
    left = max_calls
    while left is None or left > 0:
        size = batch if left is None else min(batch, left)
        yield size
        left = None if left is None else left - size


def _explained(error: DBAPIError, connection: Connection) -> UserError:
    state = sqlstate(error)
    if state in {_UNDEFINED_FUNCTION, _UNDEFINED_SCHEMA}:
        return UserError("The database has no token engine yet: run oblivion-schema upgrade head first.")
    if state == "42501":
        role = connection.engine.url.username or "This role"
        return UserError(
            f"{role} may not do that: connect as the owner of the database, or let the owner GRANT service_role to it."
        )
    failed = str(explain(error, connection.engine))
    return UserError(failed.replace("Nothing was changed", "Earlier batches stay committed"))


def _calls(number: int) -> str:
    return f"{number} call{'s' * (number != 1)}"


def _tokens(number: int) -> str:
    return f"{number} token{'s' * (number != 1)}"
