"""The page of the report: one HTML file that loads nothing, and runs no script."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from oblivion_schema.errors import one_line
from oblivion_schema.report import plots
from oblivion_schema.report.figures import ENOUGH_MINUTES, WEEK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import date, datetime

    from oblivion_schema.report.figures import Figures, Span

_SERIES: Final = {
    ("voice", False): "Voice",
    ("voice", True): "Voice, TURN",
    ("video", False): "Video",
    ("video", True): "Video, TURN",
}
_LONGEST_ID: Final = 60  # characters; a client chose it


def write(figures: Figures) -> str:
    """The HTML of the report."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(number=_number, time=_time, days=_days, shown=_shown, percent=_percent)
    return environment.get_template("page.html.j2").render(
        it=figures,
        unit=figures.span.unit,
        week=WEEK,
        enough_minutes=ENOUGH_MINUTES,
        minutes=sum(row.minutes for row in figures.tokens),
        used=sum(row.tokens for row in figures.tokens),
        used_over_turn=sum(row.tokens for row in figures.tokens if row.used_turn),
        voice=sum(row.voice for row in figures.calls),
        video=sum(row.video for row in figures.calls),
        calls_over_turn=sum(row.turn for row in figures.calls),
        plots=_plots(figures),
    )


def _plots(figures: Figures) -> Mapping[str, str]:
    """The plots of what happened; a section without one says that nothing did."""
    span, drawn = figures.span, {}
    bars, unit = span.bars(), span.unit
    if figures.calls:
        by_mode = {
            "Voice": _by_bar(span, ((row.day, row.voice) for row in figures.calls)),
            "Video": _by_bar(span, ((row.day, row.video) for row in figures.calls)),
        }
        drawn["calls"] = plots.stacked("Calls", unit, by_mode, bars)
    if figures.tokens:
        by_rate = {
            label: _by_bar(span, ((row.day, row.tokens) for row in figures.tokens if (row.mode, row.used_turn) == rate))
            for rate, label in _SERIES.items()
        }
        drawn["tokens"] = plots.stacked("Tokens", unit, by_rate, bars)
        drawn["accounts"] = plots.stacked("Active accounts", unit, {"Accounts": figures.active_by_bar}, bars)
    if figures.low.total:
        labels = [f"{day} to {day + 1}" for day in range(WEEK)]
        drawn["low"] = plots.counts(
            "Accounts whose balance runs low",
            [*labels, f"{WEEK} or more"],
            figures.low_by_days,
            "days that the balance lasts",
        )
    if figures.shortfall:
        by_day = _by_bar(span, figures.short_by_day.items())
        drawn["short"] = plots.stacked("Tokens that no balance covered", unit, {"Shortfall": by_day}, bars)
    if figures.pages and figures.pages.by_day:
        due, logged, taken = (
            _by_bar(span, ((row.day, getattr(row, name)) for row in figures.pages.by_day))
            for name in ("due", "logged", "taken")
        )
        parts = {"Taken from balances": taken, "Logged by pages": logged}
        drawn["pages"] = plots.within("Tokens of calls that pages bill", unit, ("Due", due), parts, bars)
    return drawn


def _by_bar(span: Span, amounts: Iterable[tuple[date, int]]) -> Mapping[date, int]:
    sums: Counter[date] = Counter()
    for day, amount in amounts:
        sums[span.bar(day)] += amount
    return sums


def _number(value: float) -> str:
    return f"{value:,.0f}"


def _time(value: datetime) -> str:
    return f"{value:%Y-%m-%d %H:%M}"


def _days(value: float) -> str:
    """A number of days, rounded down: what lasts 0.99 days does not last one."""
    return f"{int(value * 10) / 10:.1f}"


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def _shown(text: str | None, longest: int = _LONGEST_ID) -> str:
    """An id or a message as one line of characters that can be seen, none of which turns the others around."""
    seen = one_line(text or "nobody")
    return seen if len(seen) <= longest else f"{seen[: longest - 1]}…"
