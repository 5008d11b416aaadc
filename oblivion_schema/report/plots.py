"""Plots as SVG that stands in the page, in the page's colours.

matplotlib draws with stand-ins for colours, each of which becomes a variable of the page's style sheet.
"""

from __future__ import annotations

import io
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup
from matplotlib import rc_context, rcdefaults, rcParams
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import date
    from typing import Literal

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import BarContainer

    Unit = Literal["day", "week", "month"]

_PAPER, _INK, _LINE = "#f0f0f1", "#0f0f11", "#d0d0d1"
_SERIES: Final = ("#a00001", "#a00002", "#a00003", "#a00004")
_VARIABLES: Final = {_PAPER: "paper", _INK: "muted", _LINE: "line"} | {
    colour: f"series-{number}" for number, colour in enumerate(_SERIES, 1)
}
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _INK,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _LINE,
    "xtick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.color": _LINE,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0,
    "legend.frameon": False,
}
_WIDTH: Final = 9.6
_HEIGHT: Final = 2.3
_LABELS: Final = 10  # on an axis; more of them would overlap


def stacked(name: str, unit: Unit, series: Mapping[str, Mapping[date, int]], bars: Sequence[date]) -> Markup:
    """Bars on top of each other, for each of `bars` one; `name` says what they count."""
    with _styled():
        figure, axes = _figure()
        floor, drawn = [0] * len(bars), []
        for colour, (label, values) in zip(_colours(len(series)), series.items(), strict=True):
            heights = [values.get(bar, 0) for bar in bars]
            drawn.append(
                axes.bar(
                    range(len(bars)), heights, 0.8, floor, color=colour, edgecolor=_PAPER, linewidth=0.4, label=label
                )
            )
            floor = [below + height for below, height in zip(floor, heights, strict=True)]
        _name_bars(axes, [_short(bar, unit) for bar in bars])
        if len(series) > 1:
            _legend(figure, *drawn)
        most = max(range(len(bars)), key=floor.__getitem__)
        totals = ", ".join(f"{label} {sum(values.values()):,}" for label, values in series.items())
        said = f"{name} per {unit}: {totals}. Most on {_long(bars[most], unit)}: {floor[most]:,}."
        return _svg(figure, f"Bar chart. {said}")


def within(
    name: str,
    unit: Unit,
    whole: tuple[str, Mapping[date, int]],
    parts: Mapping[str, Mapping[date, int]],
    bars: Sequence[date],
) -> Markup:
    """A wide bar for the whole, and before it a narrow bar and a dash for the two parts that should be as high."""
    with _styled():
        figure, axes = _figure()
        (bar_label, bar_values), (dash_label, dash_values) = parts.items()
        places = range(len(bars))
        wide = axes.bar(places, [whole[1].get(bar, 0) for bar in bars], 0.86, color=_SERIES[0], label=whole[0])
        narrow = axes.bar(places, [bar_values.get(bar, 0) for bar in bars], 0.42, color=_SERIES[1], label=bar_label)
        dashes = axes.hlines(
            [dash_values.get(bar, 0) for bar in bars],
            [place - 0.43 for place in places],
            [place + 0.43 for place in places],
            color=_SERIES[3],
            linewidth=1.6,
            label=dash_label,
        )
        _name_bars(axes, [_short(bar, unit) for bar in bars])
        _legend(figure, wide, narrow, dashes)
        totals = ", ".join(f"{label} {sum(values.values()):,}" for label, values in (whole, *parts.items()))
        return _svg(figure, f"Bar chart. {name} per {unit}: {totals}.")


def counts(name: str, labels: Sequence[str], values: Sequence[int], axis: str) -> Markup:
    """A bar for each label, with its value above it."""
    with _styled():
        figure, axes = _figure(_HEIGHT * 0.8)
        drawn = axes.bar(range(len(labels)), values, 0.7, color=_SERIES[2])
        axes.bar_label(drawn, [f"{value:,}" if value else "" for value in values], padding=2)
        _name_bars(axes, labels)
        axes.set_xlabel(axis)
        said = ", ".join(f"{label}: {value:,}" for label, value in zip(labels, values, strict=True))
        return _svg(figure, f"Bar chart. {name}, by {axis}: {said}.")


@contextmanager
def _styled() -> Iterator[None]:
    """Our style, whatever matplotlibrc says."""
    with rc_context():
        rcdefaults()
        rcParams.update(_STYLE)
        yield


def _figure(height: float = _HEIGHT) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    return figure, axes


def _colours(number: int) -> Sequence[str]:
    """Two are a light blue and a light orange, of which the dark ones are the TURN of four."""
    return {1: _SERIES[1:2], 2: _SERIES[::2]}.get(number, _SERIES)


def _name_bars(axes: Axes, labels: Sequence[str]) -> None:
    step = -(-len(labels) // _LABELS)
    # The last bar, which is today's, always has its name.
    places = sorted(range(len(labels) - 1, -1, -step))
    axes.set_xticks(places, [labels[place] for place in places])
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.set_ylim(0, max(axes.get_ylim()[1], 1))


def _legend(figure: Figure, *drawn: Artist | BarContainer) -> None:
    figure.legend(handles=drawn, loc="outside upper left", ncols=len(drawn), handlelength=1, handleheight=1)


def _short(bar: date, unit: Unit) -> str:
    return f"{bar:%b %Y}" if unit == "month" else f"{bar.day} {bar:%b}"


def _long(bar: date, unit: Unit) -> str:
    return f"{bar:%B %Y}" if unit == "month" else f"{'' if unit == 'day' else 'the week of '}{bar.day} {bar:%B %Y}"


def _svg(figure: Figure, said: str) -> Markup:
    """The figure as an element of a page: without ids that two figures share, and without links to name spaces."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(file, format="svg", transparent=True, metadata=nothing)
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :].replace("xlink:href", "href")
    drawn = re.sub(r'<g id="[^"]*"', "<g", re.sub(r"\s*<defs>\s*<style.*?</defs>", "", drawn, count=1, flags=re.DOTALL))
    for colour, name in _VARIABLES.items():
        drawn = drawn.replace(colour, f"var(--{name})")
    opening, _, rest = drawn.partition(">")
    [box] = re.findall(r'viewBox="[^"]*"', opening)
    # matplotlib has escaped the text in it.
    return Markup('<svg {} role="img" aria-label="{}">').format(Markup(box), said) + Markup(rest)  # noqa: S704
