"""The charts of an evaluation's page as SVG inside the HTML: their ink is the page's, so they follow its light and dark colours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from segpipe.wording import points

COLOURS = ("#2f7ed8", "#d9731a", "#1f9e77", "#c14d8f", "#8f6fd1", "#b08a00", "#2aa5b8", "#d24b3e")
"""Contrast of at least 3 to 1 with both the light and the dark page, as in the figures of the comparison."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 290, 50, 14, 10, 42
BINS = 20


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Places values `low`..`high` between two pixels, linearly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return round(self.start + (self.end - self.start) * (value - low) / ((high - low) or 1), 2)


def image_scores(values: np.ndarray, scores: Mapping[str, Any]) -> Markup | None:
    """How many images have which mIoU: a histogram of `values` float64 (N,), 0..1, with the means as lines. None without any."""
    known = values[~np.isnan(values)]
    if not known.size:
        return None
    counts = np.histogram(known, bins=BINS, range=(0, 1))[0]
    top = _nice(int(counts.max()))
    x, y = _scales((0, 100), (0, top))
    bars = [
        _rect(
            x.at(100 * i / BINS) + 0.5,
            y.at(n),
            x.at(5) - x.at(0) - 1,
            y.at(0) - y.at(n),
            COLOURS[0],
            f"{n} images, {5 * i} to {5 * i + 5}",
        )
        for i, n in enumerate(counts.tolist())
        if n
    ]
    lines, entries = [], []
    for colour, dash, key, what in (
        (COLOURS[1], "", "miou", "all images together"),
        (COLOURS[2], "6 3", "image_miou", "mean over images"),
        (COLOURS[7], "2 2", "worst10_miou", "mean of the worst tenth"),
    ):
        if scores.get(key) is not None:
            place = x.at(100 * scores[key])
            lines.append(f'<path d="M{place} {TOP}V{y.at(0)}" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
            entries.append((colour, f"{what}: {points(scores[key])}"))
    ticks = sorted({0, top // 2, top}) if top > 1 else [0, 1]
    frame = _frame(x, y, x_ticks=range(0, 101, 20), y_ticks=ticks, x_label="mIoU of an image, points", y_label="images")
    words = f"Histogram of the mIoU of {known.size} images. " + ", ".join(text for _, text in entries)
    return _chart([*frame, *bars, *lines], words, entries)


def trimap_curve(bands: Sequence[tuple[int, float | None]], whole: float | None) -> Markup | None:
    """mIoU inside bands of growing radius around the true contours, against that of the whole image. None without any."""
    known = [(radius, value) for radius, value in bands if value is not None]
    if not known:
        return None
    heights = [100 * value for _, value in known] + ([100 * whole] if whole is not None else [])
    low, high = _round_span(min(heights), max(heights))
    x, y = _scales((known[0][0], known[-1][0]), (low, high), log=True)
    frame = _frame(
        x, y, x_ticks=[r for r, _ in known], y_ticks=_ticks(low, high), x_label="radius of the band, pixels", y_label="mIoU, points"
    )
    drawn = _line([(x.at(r), y.at(100 * v)) for r, v in known], COLOURS[0], [f"radius {r}: {points(v)}" for r, v in known])
    entries = [(COLOURS[0], "inside the band")]
    if whole is not None:
        drawn.append(
            f'<path d="M{LEFT} {y.at(100 * whole)}H{WIDTH - RIGHT}" stroke="{COLOURS[1]}" stroke-width="2" stroke-dasharray="6 3"/>'
        )
        entries.append((COLOURS[1], f"whole images: {points(whole)}"))
    words = "mIoU near true contours: " + ", ".join(f"within {r} pixels {points(v)}" for r, v in known)
    return _chart([*frame, *drawn], words, entries)


def reliability(calibration: Mapping[str, Any]) -> Markup | None:
    """The share of pixels that are right by how sure the network was, before and after the temperature. None without pixels."""
    if calibration["before"]["ece"] is None:
        return None
    x, y = _scales((0, 100), (0, 100))
    frame = _frame(
        x, y, x_ticks=range(0, 101, 20), y_ticks=range(0, 101, 20), x_label="confidence, %", y_label="pixels that are right, %"
    )
    frame.append(f'<path d="M{x.at(0)} {y.at(0)}L{x.at(100)} {y.at(100)}" class="soft" stroke-dasharray="3 3"/>')
    entries, words = [], []
    largest = max(bin["pixels"] / calibration[when]["pixels"] for when in ("before", "after") for bin in calibration[when]["bins"])
    for colour, when, what in ((COLOURS[1], "before", "as it is"), (COLOURS[0], "after", "with the temperature")):
        table = calibration[when]
        filled = [bin for bin in table["bins"] if bin["pixels"]]
        places = [(x.at(100 * bin["confidence"]), y.at(100 * bin["accuracy"])) for bin in filled]
        sizes = [2.5 + 5.5 * math.sqrt(bin["pixels"] / table["pixels"] / largest) for bin in filled]
        titles = [
            f"{what}: confidence {100 * bin['confidence']:.1f} %, right {100 * bin['accuracy']:.1f} %, {bin['pixels']:,} pixels"
            for bin in filled
        ]
        frame += _line(places, colour, titles, sizes)
        entries.append((colour, f"{what}: calibration error {points(table['ece'])}"))
        words.append(f"{what}: mean confidence {100 * table['mean_confidence']:.1f} %, right {100 * table['accuracy']:.1f} %")
    return _chart(frame, "Reliability diagram. " + "; ".join(words), entries)


def corruption_curves(rows: Mapping[str, Mapping[str, Any]], whole: float | None) -> Markup | None:
    """mIoU by the severity of each corruption, from the undamaged images on the left. None where nothing is defined."""
    known = [row for row in rows.values() if row["miou"] is not None]
    if not known:
        return None
    severities = sorted({row["severity"] for row in known})
    heights = [100 * row["miou"] for row in known] + ([100 * whole] if whole is not None else [])
    low, high = _round_span(min(heights), max(heights))
    x, y = _scales((0, severities[-1]), (low, high))
    frame = _frame(
        x,
        y,
        x_ticks=[0, *severities],
        y_ticks=_ticks(low, high),
        x_label="severity (0: as the images are)",
        y_label="mIoU, points",
    )
    entries, words = [], []
    for number, name in enumerate(dict.fromkeys(row["corruption"] for row in known)):
        colour = COLOURS[number % len(COLOURS)]
        mine = sorted((row["severity"], row["miou"]) for row in known if row["corruption"] == name)
        values = ([(0, whole)] if whole is not None else []) + mine
        frame += _line([(x.at(s), y.at(100 * v)) for s, v in values], colour, [f"{name} {s}: {points(v)}" for s, v in values])
        entries.append((colour, name))
        words.append(f"{name} " + ", ".join(points(v) for _, v in mine))
    return _chart(frame, f"mIoU at severities {', '.join(map(str, severities))}: " + "; ".join(words), entries)


def _scales(across: tuple[float, float], upward: tuple[float, float], *, log: bool = False) -> tuple[Scale, Scale]:
    x = Scale(low=across[0], high=across[1], start=LEFT + 6, end=WIDTH - RIGHT - 6, log=log)
    return x, Scale(low=upward[0], high=upward[1], start=HEIGHT - BOTTOM, end=TOP)


def _frame(x: Scale, y: Scale, *, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str) -> list[str]:
    base = HEIGHT - BOTTOM
    parts = [f'<path d="M{LEFT} {y.at(v)}H{WIDTH - RIGHT}" class="grid"/>' for v in y_ticks]
    parts += [f'<text x="{LEFT - 6}" y="{y.at(v) + 4}" text-anchor="end">{v:g}</text>' for v in y_ticks]
    parts += [f'<text x="{x.at(v)}" y="{base + 16}" text-anchor="middle">{v:g}</text>' for v in x_ticks]
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    middle = (TOP + base) / 2
    parts.append(f'<text x="13" y="{middle}" text-anchor="middle" transform="rotate(-90 13 {middle})">{escape(y_label)}</text>')
    return parts


def _line(
    places: Sequence[tuple[float, float]], colour: str, titles: Sequence[str], sizes: Sequence[float] | None = None
) -> list[str]:
    path = "L".join(f"{a} {b}" for a, b in places)
    dots = [
        f'<circle cx="{a}" cy="{b}" r="{size:.1f}" fill="{colour}"><title>{escape(title)}</title></circle>'
        for (a, b), title, size in zip(places, titles, sizes or [3.5] * len(places), strict=True)
    ]
    return [f'<path d="M{path}" stroke="{colour}" stroke-width="2" fill="none"/>', *dots]


def _rect(left: float, top: float, width: float, height: float, colour: str, title: str) -> str:
    place = f'x="{left:.2f}" y="{top:.2f}" width="{width:.2f}" height="{height:.2f}"'
    return f'<rect {place} fill="{colour}"><title>{escape(title)}</title></rect>'


def _chart(parts: Sequence[str], words: str, entries: Sequence[tuple[str, str]]) -> Markup:
    legend = "".join(
        f'<li><span class="swatch" style="background: {colour}"></span>{escape(text)}</li>' for colour, text in entries
    )
    drawn = "\n".join(parts)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(words)}">\n{drawn}\n</svg>'
        f'<ul class="legend">{legend}</ul>'
    )


def _nice(count: int) -> int:
    """The next even number, so that half of it is a tick; 1 stays."""
    return count if count == 1 else count + count % 2


def _round_span(low: float, high: float) -> tuple[float, float]:
    """Multiples of 10 around two values in points, within 0 and 100."""
    below, above = max(0.0, 10 * math.floor(low / 10)), min(100.0, 10 * math.ceil(high / 10))
    return (below, above) if below < above else (max(0.0, below - 10), min(100.0, above + 10))


def _ticks(low: float, high: float) -> list[float]:
    step = 10 if high - low <= 60 else 20
    return [low + step * i for i in range(int((high - low) // step) + 1)]
