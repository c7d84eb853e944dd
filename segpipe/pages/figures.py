"""Figures of the reports as SVG text: transparent, with text as text, and legible on a light and on a dark page.

Ink (text, axes) is `currentColor` and an inline style sheet picks it by the reader's colour scheme, which browsers apply inside
`<img>` too. Figures are as wide as a phone's screen, so that their letters keep their size there.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

COLOURS = ("#2f7ed8", "#d9731a", "#1f9e77", "#c14d8f", "#8f6fd1", "#b08a00", "#2aa5b8", "#d24b3e")
"""Contrast of at least 3 to 1 with both the light and the dark page; after the last one they start anew with another marker."""
MARKERS = "osD^vP"
_INK, _SOFT = "#010203", "#010204"
_RC = {
    "svg.fonttype": "none",
    "svg.hashsalt": "segpipe",
    "savefig.facecolor": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "xtick.color": _SOFT,
    "ytick.color": _SOFT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _SOFT,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.7,
}
_STYLE = (
    "<style>svg{color:#1b1f24;--soft:#5b6570}@media (prefers-color-scheme:dark){svg{color:#e7eaed;--soft:#9aa5b0}}"
    "text{font-family:system-ui,sans-serif}</style>"
)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line: `x` and `y` of equal length, NaN left out. Curves of one `model` share a colour; only the first one is named."""

    model: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model in a plane: its cost, its score with its interval (in points), and whether no other model beats it in both."""

    model: str
    x: float
    y: float
    low: float
    high: float
    front: bool


def colour_of(models: Sequence[str]) -> dict[str, tuple[str, str]]:
    """{model: (colour, marker)}, by the order of `models`; give all figures of a page the same order."""
    return {m: (COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]) for i, m in enumerate(models)}


def curves(lines: Sequence[Curve], *, models: Sequence[str], xlabel: str, ylabel: str) -> str:
    """SVG text of curves over epochs, one colour per model; replicates are thinner."""
    looks = colour_of(models)
    with mpl.rc_context(_RC):
        figure, axes = _axes(xlabel, ylabel, height=2.9 + 0.18 * math.ceil(len(models) / _columns(models)))
        seen: set[tuple[str, bool]] = set()
        for line in lines:
            first = (line.model, line.dashed) not in seen
            seen.add((line.model, line.dashed))
            axes.plot(
                line.x,
                line.y,
                color=looks[line.model][0],
                linestyle="--" if line.dashed else "-",
                linewidth=1.8 if first else 0.9,
                marker=looks[line.model][1] if len(line.x) == 1 or looks[line.model][1] != MARKERS[0] else None,
                markersize=4,
                label=line.model if first and not line.dashed else None,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
        figure.legend(
            loc="outside lower center", ncols=_columns(models), frameon=False, labelcolor=_INK, handlelength=1.4, columnspacing=1.2
        )
        return _svg(figure)


def cost_against_score(points: Sequence[Point], *, models: Sequence[str], xlabel: str, ylabel: str) -> str:
    """SVG text of cost against score: intervals as bars, the Pareto front as a stepped line, names beside the points.

    With more than 6 points only those of the front are named.
    """
    looks = colour_of(models)
    with mpl.rc_context(_RC):
        figure, axes = _axes(xlabel, ylabel, height=3.3)
        front = sorted((p for p in points if p.front), key=lambda p: p.x)
        if len(front) > 1:
            axes.step([p.x for p in front], [p.y for p in front], where="post", color=_SOFT, linewidth=1, linestyle=":", zorder=1)
        for p in points:
            colour, marker = looks[p.model]
            axes.errorbar(
                p.x,
                p.y,
                yerr=[[max(0.0, p.y - p.low)], [max(0.0, p.high - p.y)]],
                color=colour,
                marker=marker,
                markersize=8 if p.front else 5,
                elinewidth=1.2,
                capsize=0,
            )
        _name_points(axes, points if len(points) <= 6 else front)
        costs = [p.x for p in points]
        if min(costs) > 0 and max(costs) / min(costs) > 8:
            axes.set_xscale("log")
            subs = (1, 2, 5) if max(costs) / min(costs) < 100 else (1,)
            axes.xaxis.set_major_locator(LogLocator(base=10, subs=subs, numticks=12))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_xlim(left=0)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.margins(x=0.18)
        return _svg(figure)


def short(value: float) -> str:
    """A quantity for an axis or a table: 950, 1.2k, 34M, 7.9."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def _columns(names: Sequence[str]) -> int:
    """How many columns of a legend fit side by side under a figure."""
    return max(1, min(3, len(names), 62 // (max(map(len, names)) + 7)))


def _name_points(axes: Axes, points: Sequence[Point]) -> None:
    """Names right of their points, or left of those in the right third; neighbours in height are moved apart."""
    ordered = sorted(points, key=lambda p: p.y)
    reach = max(p.x for p in points)
    span = max((max(p.high for p in points) - min(p.low for p in points)), 1e-9)
    taken: list[tuple[bool, float]] = []
    for p in ordered:
        left = p.x > 0.66 * reach
        level = p.y
        while any(side == left and abs(level - other) < 0.055 * span for side, other in taken):
            level += 0.01 * span
        taken.append((left, level))
        axes.annotate(
            p.model,
            (p.x, level),
            xytext=(-6 if left else 6, 3),
            textcoords="offset points",
            ha="right" if left else "left",
            va="bottom",
            color=_INK,
            parse_math=False,
        )


def _axes(xlabel: str, ylabel: str, *, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.9, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return figure, axes


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    # No date and no version in the file: the same numbers give the same bytes.
    FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor").replace(_SOFT, "var(--soft)")
    head, _, rest = text.partition(">")
    return f"{head}>{_STYLE}{rest}"
