"""`oblivion-schema pages`: what pages that bill their calls by themselves were due, logged, took and lost.

It compares three witnesses: the times of the calls, the log of usage, and the ledger, which has what balances really
lost. One read-only query does it.
"""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from oblivion_schema.errors import UserError, explain, one_line, sqlstate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from sqlalchemy import Connection

    from oblivion_schema.tables.access import PageBilling

_SQL: Final = (Path(__file__).with_suffix("") / "report.sql").read_text(encoding="utf-8")
_MOST_DAYS: Final = 3650
_MAY_NOT: Final = "42501"


def number_of_days(given: str, name: str) -> int:
    """Parse a number of days. Raises UserError, which names the option `name`."""
    if not re.fullmatch(r"[0-9]{1,9}", given) or not 1 <= int(given) <= _MOST_DAYS:
        raise UserError(f"{name} {given}: give a number of days from 1 to {_MOST_DAYS}, such as 30.")
    return int(given)


@dataclass(frozen=True)
class Raised:
    """An account whose balance pages raised: how many times, and by how many tokens in all."""

    user_id: str
    raises: int
    tokens: int


@dataclass(frozen=True)
class Loss:
    """An account that paid less than it was due: tokens due, really taken, and lost."""

    user_id: str
    due: int
    taken: int
    lost: int


@dataclass(frozen=True)
class Day:
    """A UTC day: tokens due for calls that ended on it, logged for these calls, and really taken on it."""

    day: date
    due: int
    logged: int
    taken: int


@dataclass(frozen=True)
class Report:
    """How calls of pages were billed; `json()` has these names as its keys. Sums of tokens are tokens.

    - `pages`: the mode, trusted or metered.
    - `days`, `since`, `until`: what the report is about.
    - `calls`, `tokens_due`, `tokens_logged`: ended calls of accounts that the engine did not meter; what they cost by
      their own times; what token_usage says of them.
    - `calls_billed_twice`: with two rows of usage or more. `calls_never_billed`: with none, and something due.
      `calls_of_impossible_length`: of more than 999,999 tokens, which count as 0.
    - `ledger_since`: since when the ledger knows each change of a balance; None if it is empty.
    - `compared_since`, `compared_calls`, `compared_tokens_due`: the part of these calls that the ledger knows of.
    - `tokens_taken`: what these calls' accounts really lost, and `tokens_lost`: what is missing, account by account.
      `tokens_lost_percent` is of `compared_tokens_due`; `tokens_lost_at_zero` is the part of accounts that came to 0,
      which no balance may have covered.
    - `metered_calls`, `metered_tokens_due`, `metered_tokens_charged`: calls of pages that the engine metered.
    - `accounts_raised`, `raises`, `tokens_raised`: balances that a page raised; `first_accounts_raised` has the first.
    - `first_losses`: the accounts that lost most. `by_day`: the days on which something was due, logged or taken.
    """

    pages: PageBilling
    days: int
    since: datetime
    until: datetime
    calls: int
    tokens_due: int
    tokens_logged: int
    calls_billed_twice: int
    calls_never_billed: int
    calls_of_impossible_length: int
    ledger_since: datetime | None
    compared_since: datetime
    compared_calls: int
    compared_tokens_due: int
    tokens_taken: int
    tokens_lost: int
    tokens_lost_percent: float
    tokens_lost_at_zero: int
    metered_calls: int
    metered_tokens_due: int
    metered_tokens_charged: int
    accounts_raised: int
    raises: int
    tokens_raised: int
    first_accounts_raised: tuple[Raised, ...]
    first_losses: tuple[Loss, ...]
    by_day: tuple[Day, ...]

    @property
    def is_unknown(self) -> bool:
        """Whether calls ended, and the ledger knows of none of them what was taken, as right after an upgrade."""
        return bool(self.calls) and not self.compared_calls

    def json(self) -> str:
        """The report as one JSON text; times are ISO 8601, in UTC."""
        return json.dumps(asdict(self), default=lambda time: time.isoformat(), indent=2)

    def lines(self) -> Iterator[str]:
        """The report for people; the last line says what to do next."""
        says = {"trusted": "they bill their calls by themselves", "metered": "the database bills their calls"}
        yield f"Pages are {self.pages}: {says[self.pages]}."
        yield (
            f"Since {_time(self.since)} ({_number(self.days, 'day')}) {_number(self.calls, 'call')} ended that pages"
            f" bill by themselves{':' if self.calls else '.'}"
        )
        if self.calls:
            yield from (f"  {said:<40}{figure:>12}{further}" for said, figure, further in self._figures())
            yield from self._remarks()
        if self.metered_calls or self.pages == "metered":
            yield (
                f"The database metered {_number(self.metered_calls, 'call')} of pages:"
                f" {_number(self.metered_tokens_due, 'token')} due, {self.metered_tokens_charged:,} charged."
            )
        if self.raises:
            yield f"Pages raised the balances of {_number(self.accounts_raised, 'account')}: {self._raised()}."
            yield "  These are dashboards and sign-ins, which have no effect if pages are metered: use top_up() there."
        yield self._next()

    def _figures(self) -> Iterator[tuple[str, str, str]]:
        yield "tokens due by the calls' own times", f"{self.tokens_due:,}", ""
        yield "tokens that pages logged", f"{self.tokens_logged:,}", ""
        yield "calls billed twice or more", f"{self.calls_billed_twice:,}", ""
        yield "calls never billed", f"{self.calls_never_billed:,}", ""
        if self.is_unknown:
            yield "tokens really taken, and lost", "not known", ""
            return
        if self.compared_calls < self.calls:
            yield f"since {_time(self.compared_since)}, tokens due", f"{self.compared_tokens_due:,}", ""
        yield "tokens really taken from balances", f"{self.tokens_taken:,}", ""
        share = f" ({self.tokens_lost_percent} % of what was due)" if self.tokens_lost else ""
        yield "tokens lost", f"{self.tokens_lost:,}", share

    def _remarks(self) -> Iterator[str]:
        if self.is_unknown:
            yield (
                f"  The ledger knows what is taken since {_time(self.compared_since)}; all of these calls ended before."
            )
        elif self.compared_calls < self.calls:
            yield (
                "  The ledger does not know what was taken before that:"
                f" the last three figures are of the {_number(self.compared_calls, 'call')} since then."
            )
        if self.tokens_lost_at_zero:
            yield (
                f"  {self.tokens_lost_at_zero:,} of the tokens lost are of accounts that came to 0,"
                " which may have had too few."
            )
        if self.calls_of_impossible_length:
            yield (
                f"  {_number(self.calls_of_impossible_length, 'call')} would cost more than 999,999 tokens"
                " by a wrong clock, and is counted as 0."
            )

    def _raised(self) -> str:
        named = [
            f"{one_line(account.user_id)} {_number(account.raises, 'time')} by {_number(account.tokens, 'token')}"
            for account in self.first_accounts_raised
        ]
        more = self.accounts_raised - len(named)
        return ", ".join(named) + (f" and {more:,} more" if more else "")

    def _next(self) -> str:
        if self.pages == "metered":
            return "To let pages bill by themselves again: oblivion-schema pages trusted; see docs/pages.md."
        if self.tokens_lost or self.calls_billed_twice or self.calls_never_billed:
            return "To let the database bill these calls: oblivion-schema pages metered; see docs/pages.md."
        if self.is_unknown:
            return "Run this again when calls have ended since then; docs/pages.md says what pages lose."
        return "Nothing was lost. To let the database bill anyway: oblivion-schema pages metered; see docs/pages.md."


@contextmanager
def told_what_it_may_not_read(connection: Connection) -> Iterator[None]:
    """Within this context an error of PostgreSQL becomes one line, also that a role may not read all of a report."""
    try:
        yield
    except DBAPIError as error:
        if sqlstate(error) == _MAY_NOT:
            role = connection.engine.url.username or "This role"
            raise UserError(
                f"{role} may not read all that the report is about: connect as the owner of the database."
            ) from error
        raise explain(error, connection.engine) from error


def report(connection: Connection, days: int, since: datetime | None = None) -> Report:
    """Report on the last `days`, or since that time, in a read-only transaction.

    Raises UserError for a role that may not read it all.
    """
    with told_what_it_may_not_read(connection):
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")
        # A role that policies bind would see a part of the calls, and the sums would be wrong: it gets an error.
        connection.exec_driver_sql("SET LOCAL row_security = off")
        # With old statistics PostgreSQL would take each of a million calls for a search of its own.
        connection.exec_driver_sql("SET LOCAL enable_nestloop = off")
        found = dict(
            connection.execute(text(_SQL.replace("::", r"\:\:")), {"days": days, "since": since}).mappings().one()
        )
    due, lost = int(found["compared_tokens_due"]), int(found["tokens_lost"])
    raised = _together(found, "first_accounts", "first_raises", "first_tokens")
    losses = _together(found, "first_losers", "first_due", "first_taken", "first_lost")
    by_day = _together(found, "days_ended", "days_due", "days_logged", "days_taken")
    return Report(
        days=days,
        tokens_lost_percent=round(100 * lost / due, 1) if due else 0.0,
        first_accounts_raised=tuple(Raised(user, *map(int, sums)) for user, *sums in raised),
        first_losses=tuple(Loss(user, *map(int, sums)) for user, *sums in losses),
        by_day=tuple(Day(day, *map(int, sums)) for day, *sums in by_day),
        **{name: _plain(value) for name, value in found.items()},
    )


def _together(found: dict[str, Any], *names: str) -> Iterator[tuple[Any, ...]]:
    """Take columns that are arrays, and give their elements row by row."""
    return zip(*(found.pop(name) or () for name in names), strict=True)


def _plain(value: Any) -> Any:
    """Times in UTC, and sums, which are numeric in PostgreSQL, as integers."""
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return value if value is None or isinstance(value, str) else int(value)


def _time(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC"


def _number(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
