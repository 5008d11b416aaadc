"""The figures of the report, of one snapshot of the database.

Sums by day come from the views, which read roll-ups. A figure of accounts reads the rows of the time that it is about.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from sqlalchemy import Date, Numeric, cast, func, or_, select, union_all

from oblivion_schema import (
    active_calls,
    billing_incidents,
    call_meters,
    call_segments,
    callers_without_account,
    daily_billing_summary,
    daily_token_usage,
    token_ledger,
    token_rates,
    token_usage,
    user_accounts,
)
from oblivion_schema.commands.pages import report as report_on_pages
from oblivion_schema.commands.pages import told_what_it_may_not_read
from oblivion_schema.drift.check import require_newest_revision
from oblivion_schema.tables.access import current_modes
from oblivion_schema.tables.backfills import backfills

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Literal

    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, Select

    from oblivion_schema.commands.pages import Report as PagesReport
    from oblivion_schema.tables.access import Modes

WEEK: Final = 7
ENOUGH_MINUTES: Final = 10
_LISTED: Final = 15
_Row = TypeVar("_Row")
_MOST_BARS: Final = 92  # more of them are too thin to see


@dataclass(frozen=True)
class Span:
    """The UTC days that the report is about: from `since`, a midnight, to `until`, which is now."""

    since: datetime
    until: datetime
    days: int

    @property
    def end(self) -> datetime:
        """The midnight after the last day."""
        return self.since + timedelta(days=self.days)

    @property
    def unit(self) -> Literal["day", "week", "month"]:
        """What a bar of a plot stands for."""
        return "day" if self.days <= _MOST_BARS else "week" if self.days <= _MOST_BARS * WEEK else "month"

    def bar(self, day: date) -> date:
        """The first day of the bar that `day` belongs to; weeks begin on Monday."""
        match self.unit:
            case "day":
                return day
            case "week":
                return day - timedelta(days=day.weekday())
            case "month":
                return day.replace(day=1)

    def bars(self) -> list[date]:
        """All bars, also those of days on which nothing happened."""
        return sorted({self.bar(self.since.date() + timedelta(days=n)) for n in range(self.days)})


class Calls(NamedTuple):
    """Calls that began on a day."""

    day: date
    voice: int
    video: int
    turn: int


class Tokens(NamedTuple):
    """Usage of a day, a mode and TURN."""

    day: date
    mode: str
    used_turn: bool
    tokens: int
    minutes: float


class Money(NamedTuple):
    """What the ledger says of the time: `charged` by the engine, `taken` and `added` by a direct write of a balance."""

    top_ups: int
    refunds: int
    charged: int
    taken: int
    added: int
    ledger_since: datetime | None


class Low(NamedTuple):
    """An account whose balance runs low: `used` are its tokens of the last seven days, `days_left` at that pace."""

    user_id: str
    tier: str
    balance: int
    used: int
    days_left: float


class Short(NamedTuple):
    """A call that could not be paid in full."""

    user_id: str
    seen_at: datetime
    mode: str
    cost: int
    shortfall: int


class Incident(NamedTuple):
    """A call that could not be billed yet."""

    user_id: str | None
    action: str
    message: str
    attempts: int
    first_at: datetime


class Caller(NamedTuple):
    """A user who calls and has no account; `minutes` and `calls` are those of all time."""

    user_id: str
    calls: int
    minutes: int


@dataclass(frozen=True)
class Listed(Generic[_Row]):
    """The first rows of a list, and how many there are in all."""

    rows: Sequence[_Row]
    total: int

    @property
    def more(self) -> int:
        """How many rows are not listed."""
        return self.total - len(self.rows)


@dataclass(frozen=True)
class Figures:
    """All figures of a report. Days are UTC days; `low_by_days` has an account count for 0, 1, ... 6, and 7 or more."""

    database: str
    revision: str
    server: str
    modes: Modes
    span: Span
    open_calls: int
    calls: Sequence[Calls]
    tokens: Sequence[Tokens]
    active_accounts: int
    active_by_bar: Mapping[date, int]
    money: Money
    low: Listed[Low]
    low_by_days: Sequence[int]
    enough: int
    shortfall: int
    short: Listed[Short]
    short_by_day: Mapping[date, int]
    incidents: Listed[Incident]
    callers: Listed[Caller]
    pages: PagesReport | None

    @property
    def is_empty(self) -> bool:
        """Whether nothing happened in this time."""
        return not self.calls and not self.tokens


def read(connection: Connection, days: int, revisions: ScriptDirectory, *, pages: bool) -> Figures:
    """Read the figures of the last `days`, today included, in a transaction that only reads, which it begins.

    `pages`: also what pages that bill lose, which takes longest. Raises UserError if the database is at another
    revision, or its role may not read all of it.
    """
    # All figures are of one snapshot.
    connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
    with told_what_it_may_not_read(connection):
        require_newest_revision(connection, revisions, "This role")
        # A role that policies bind would see a part of the rows, and the sums would be wrong: it gets an error.
        connection.exec_driver_sql("SET LOCAL row_security = off")
        return _read(connection, days, ", ".join(revisions.get_heads()), pages=pages)


def _read(connection: Connection, days: int, revision: str, *, pages: bool) -> Figures:
    database, server, now = connection.execute(
        select(func.current_database(), func.current_setting("server_version"), func.now())
    ).one()
    until = now.astimezone(UTC)
    span = Span(
        until.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days - 1),
        until,
        days,
    )
    active = _active(connection, span)
    enough = ENOUGH_MINUTES * _video_minute(connection)
    low, low_by_days = _low(connection, span, enough)
    short, short_by_day = _short(connection, span)
    return Figures(
        database=database,
        revision=revision,
        server=server.partition(" ")[0],
        modes=current_modes(connection),
        span=span,
        open_calls=connection.scalars(select(func.count()).select_from(active_calls)).one(),
        calls=_calls(connection, span),
        tokens=_tokens(connection, span),
        active_accounts=active.pop(None),
        active_by_bar={bar: accounts for bar, accounts in active.items() if bar is not None},
        money=_money(connection, span),
        low=low,
        low_by_days=low_by_days,
        enough=enough,
        shortfall=sum(short_by_day.values()),
        short=short,
        short_by_day=short_by_day,
        incidents=_incidents(connection),
        callers=_callers(connection, span),
        # The last one: it turns off nested loops.
        pages=report_on_pages(connection, days, span.since) if pages else None,
    )


def _calls(connection: Connection, span: Span) -> list[Calls]:
    c = daily_billing_summary.c
    its_days = c.call_date.between(span.since.date(), span.until.date())
    query = select(c.call_date, c.voice_calls, c.video_calls, c.turn_calls).where(its_days).order_by(c.call_date)
    return [Calls(*row) for row in connection.execute(query)]


def _tokens(connection: Connection, span: Span) -> list[Tokens]:
    c = daily_token_usage.c
    its_days = c.usage_date.between(span.since.date(), span.until.date())
    query = (
        select(c.usage_date, c.mode, c.used_turn, c.total_tokens, c.total_minutes)
        .where(its_days)
        .order_by(c.usage_date, c.mode, c.used_turn)
    )
    return [
        Tokens(day, mode, used_turn, tokens, float(minutes))
        for day, mode, used_turn, tokens, minutes in connection.execute(query)
    ]


def _active(connection: Connection, span: Span) -> dict[date | None, int]:
    """How many accounts used tokens in each bar of the plot; None has those of all the time."""
    c = token_usage.c
    bar = cast(func.date_trunc(span.unit, func.timezone("UTC", c.timestamp)), Date).label("bar")
    seen = select(bar, c.user_id).where(c.timestamp >= span.since, c.timestamp < span.end).distinct().subquery()
    query = select(seen.c.bar, func.count(seen.c.user_id.distinct())).group_by(func.rollup(seen.c.bar))
    return dict(connection.execute(query).all())


def _money(connection: Connection, span: Span) -> Money:
    c = token_ledger.c
    is_recent = c.created_at >= span.since

    def total(kind: str, sign: int = 1) -> Any:
        return func.coalesce(func.sum(sign * c.tokens).filter(is_recent, c.kind == kind, sign * c.tokens > 0), 0)

    # A carried row hides what came before it.
    opened = select(backfills.c.noted_at).where(backfills.c.name == "ledger").scalar_subquery()
    known_since = func.greatest(
        func.least(func.min(c.created_at), opened), func.max(c.created_at).filter(c.kind == "carried")
    )
    query = select(
        total("top_up"), total("refund"), total("charge", -1), total("direct", -1), total("direct"), known_since
    )
    return Money(*connection.execute(query).one())


def _video_minute(connection: Connection) -> int:
    """Tokens for a minute of video now, without TURN."""
    c = token_rates.c
    query = (
        select(c.tokens_per_minute)
        .where(c.mode == "video", c.used_turn.is_(False), c.effective_from <= func.now())
        .order_by(c.effective_from.desc())
        .limit(1)
    )
    return connection.scalars(query).one_or_none() or 0


def _low(connection: Connection, span: Span, enough: int) -> tuple[Listed[Low], list[int]]:
    u, a = token_usage.c, user_accounts.c
    # Usage, not the ledger: an account of no tokens that goes on calling is charged none.
    used = (
        select(u.user_id, func.sum(u.tokens_used).label("used"))
        .where(u.timestamp > span.until - timedelta(days=WEEK), u.timestamp <= span.until)
        .group_by(u.user_id)
        .having(func.sum(u.tokens_used) > 0)
        .subquery()
    )
    days_left = (cast(a.tokens_remaining, Numeric) * WEEK / used.c.used).label("days_left")
    low = (
        select(a.user_id, a.subscription_tier, a.tokens_remaining, used.c.used, days_left)
        .join_from(user_accounts, used, used.c.user_id == a.user_id)
        .where(or_(a.tokens_remaining < used.c.used, a.tokens_remaining < enough))
        .subquery()
    )
    listed = _listed(
        connection,
        lambda user, tier, balance, used, days: Low(user, tier, balance, used, float(days)),
        select(low).order_by(low.c.days_left, low.c.used.desc(), low.c.user_id),
    )
    days = cast(func.least(func.floor(low.c.days_left), WEEK), Numeric)
    accounts = {int(day): number for day, number in connection.execute(select(days, func.count()).group_by(days))}
    return listed, [accounts.get(day, 0) for day in range(WEEK + 1)]


def _short(connection: Connection, span: Span) -> tuple[Listed[Short], dict[date, int]]:
    m, s = call_meters.c, call_segments.c
    parts = union_all(
        select(m.session_id, m.shortfall).where(m.shortfall > 0),
        select(s.session_id, s.shortfall).where(s.shortfall > 0),
    ).subquery()
    short = (
        select(m.user_id, m.seen_at, m.mode, m.cost, func.sum(parts.c.shortfall).label("shortfall"))
        .join_from(call_meters, parts, parts.c.session_id == m.session_id)
        .where(m.seen_at >= span.since)
        .group_by(m.session_id)
        .subquery()
    )
    day = cast(func.timezone("UTC", short.c.seen_at), Date)
    by_day = connection.execute(select(day, func.sum(short.c.shortfall)).group_by(day).order_by(day))
    newest = select(short).order_by(short.c.seen_at.desc(), short.c.user_id)
    return _listed(connection, Short, newest), {day: int(tokens) for day, tokens in by_day}


def _incidents(connection: Connection) -> Listed[Incident]:
    c = billing_incidents.c
    is_open = c.resolved_at.is_(None)
    query = select(c.user_id, c.action, c.message, c.attempts, c.first_at).where(is_open).order_by(c.first_at, c.id)
    return _listed(connection, Incident, query)


def _callers(connection: Connection, span: Span) -> Listed[Caller]:
    c = callers_without_account.c
    query = (
        select(c.user_id, c.calls, c.minutes)
        .where(c.last_call >= span.since, c.last_call < span.end)
        .order_by(c.minutes.desc(), c.user_id)
    )
    return _listed(connection, Caller, query)


def _listed(connection: Connection, row: Callable[..., _Row], query: Select[*tuple[Any, ...]]) -> Listed[_Row]:
    """The first rows of a query, each made by `row`, and how many it has."""
    found = connection.execute(query.add_columns(func.count().over()).limit(_LISTED)).all()
    return Listed([row(*values) for *values, _ in found], found[0][-1] if found else 0)
