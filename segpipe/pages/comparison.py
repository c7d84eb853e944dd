"""The comparison page: findings, leaderboard, pairs, classes, the same images side by side, curves and cost, in one HTML file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pandas as pd

from segpipe.comparison import HEADLINE, Comparison, Model, Pair
from segpipe.drawing import colour_mask
from segpipe.pages.figures import Curve, Point, colour_of, cost_against_score, curves, short
from segpipe.pages.findings import cautions, findings
from segpipe.pages.render import data_uri, figure_uri, render
from segpipe.resampling import pareto_front
from segpipe.verdicts import p_words, points

ROWS_EACH = 3
PAIRS_SHOWN = 12
PICTURE_BYTES = 6 * 2**20
"""What all pictures of a page may take together, before base64: the page stays under 10 MB whatever the dataset."""
COSTS = (
    ("parameters", "parameters"),
    ("wall_seconds", "training seconds"),
    ("images_per_second", "images per second in training"),
    ("gflops", "GFLOPs per image"),
    ("peak_memory_mb", "peak memory, MB"),
)


@dataclass(frozen=True, kw_only=True)
class Class:
    """A class as the page shows it: `colour` is (r, g, b), `share` its part of the labelled test pixels."""

    name: str
    colour: tuple[int, int, int]
    share: float


@dataclass(frozen=True, kw_only=True)
class PictureRow:
    """One test image side by side: why it was chosen, and {caption: picture uint8 (H, W, 3)} of image, truth and models."""

    why: str
    id: str
    cells: Sequence[tuple[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Section:
    """All that the page shows of one dataset. `histories` and `failures` (pages that exist) go by experiment."""

    comparison: Comparison
    classes: Sequence[Class]
    rows: Sequence[PictureRow]
    histories: Mapping[str, pd.DataFrame]
    failures: Mapping[str, str]


def comparison_page(sections: Sequence[Section]) -> str:
    """The self-contained HTML text of the page, one part per dataset."""
    pictures = sum(len(row.cells) for section in sections for row in section.rows)
    side = _side(pictures)
    return render("comparison.html", sections=[_context(section, side=side) for section in sections])


def choose_images(comparison: Comparison) -> list[tuple[int, str]]:
    """[(index, why)]: the images with the lowest and the highest mean mIoU over the models, and those with the widest spread.

    No image is chosen twice; with one model there is no spread; images without a defined score are never chosen.
    """
    table = np.array([model.per_image for model in comparison.models])
    known = ~np.isnan(table).any(axis=0)
    mean, spread = table.mean(axis=0), table.max(axis=0) - table.min(axis=0)
    orders = [("worst", mean), ("best", -mean)] + ([("most disagreed", -spread)] if len(table) > 1 else [])
    taken: set[int] = set()
    chosen = []
    for why, order in orders:
        left = [int(i) for i in np.argsort(order, kind="stable") if known[i] and i not in taken][:ROWS_EACH]
        taken.update(left)
        chosen += [(i, why) for i in left]
    return chosen


def picture_rows(
    comparison: Comparison,
    sample: Callable[[int], tuple[np.ndarray, np.ndarray]],
    prediction: Callable[[str, int], np.ndarray],
    palette: np.ndarray,
    *,
    ignore_index: int,
) -> list[PictureRow]:
    """The rows of `choose_images`: `sample(index)` is (image, mask), `prediction(experiment, index)` the label mask (H, W).

    A model with several seeds is shown by its first one, whose name and own score the caption gives. In predictions the pixels
    without a label are black as in the truth, since nothing there counts.
    """
    rows = []
    for index, why in choose_images(comparison):
        image, mask = sample(index)
        cells = [("image", image), ("truth", colour_mask(mask, palette, ignore_index=ignore_index))]
        for model in comparison.models:
            predicted = prediction(model.members[0].name, index).copy()
            predicted[mask == ignore_index] = ignore_index
            caption = f"{model.members[0].name}  {points(float(model.members[0].per_image[index]))}"
            cells.append((caption, colour_mask(predicted, palette, ignore_index=ignore_index)))
        rows.append(PictureRow(why=why, id=comparison.ids[index], cells=cells))
    return rows


def _context(section: Section, *, side: int) -> dict[str, Any]:
    comparison = section.comparison
    names = [model.name for model in comparison.models]
    looks = colour_of(names)
    shares = np.array([c.share for c in section.classes])
    scores = [score for m in comparison.models for score in (m.scores[HEADLINE], *(r.scores[HEADLINE] for r in m.members))]
    return {
        "dataset": comparison.dataset,
        "comparison": comparison,
        "level": f"{100 * (1 - comparison.alpha):g} %",
        "findings": findings(comparison, [c.name for c in section.classes], shares),
        "cautions": cautions(comparison),
        "models": comparison.models,
        "colours": {name: look[0] for name, look in looks.items()},
        "scale": _Scale.around([s.low for s in scores] + [s.high for s in scores]),
        "pair_scale": _Scale.around([0.0, *(v for p in comparison.pairs for v in (p.test.ci_low, p.test.ci_high))]),
        "pairs": _shown_pairs(comparison),
        "classes": [
            {"name": c.name, "colour": "#{:02x}{:02x}{:02x}".format(*c.colour), "share": c.share, "ious": ious, "best": best}
            for c, ious, best in zip(section.classes, *_class_table(comparison.models), strict=True)
        ],
        "rows": [
            {"why": row.why, "id": row.id, "cells": [_cell(caption, picture, side) for caption, picture in row.cells]}
            for row in section.rows
        ],
        "figures": [*_curve_figures(section, names), *_cost_figures(comparison, names)],
        "costs": [(key, title) for key, title in COSTS if any(m.cost.get(key) is not None for m in comparison.models)],
        "failures": section.failures,
        "points": points,
        "p_words": p_words,
        "short": short,
    }


@dataclass(frozen=True)
class _Scale:
    """A common axis of the bars in a table's column."""

    low: float
    high: float

    @classmethod
    def around(cls, values: Sequence[float]) -> "_Scale":
        margin = max(0.04 * (max(values) - min(values)), 0.002)
        return cls(min(values) - margin, max(values) + margin)

    def at(self, value: float) -> str:
        """The place of `value` on the axis, as a CSS percentage."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"


def _shown_pairs(comparison: Comparison) -> tuple[list[Pair], list[Pair]]:
    """All pairs, or where they are many those of the best model first and the others folded away."""
    pairs = list(comparison.pairs)
    best = comparison.models[0].name
    if len(pairs) <= PAIRS_SHOWN:
        return pairs, []
    return [p for p in pairs if p.a == best], [p for p in pairs if p.a != best]


def _class_table(models: Sequence[Model]) -> tuple[list[list[float | None]], list[float | None]]:
    """Per class the IoU of each model (None = undefined), and the highest of them."""
    rows = [[None if np.isnan(v) else float(v) for v in column] for column in zip(*(m.per_class for m in models), strict=True)]
    return rows, [max((v for v in row if v is not None), default=None) for row in rows]


def _side(pictures: int) -> int:
    """The longer side of each picture so that all of them stay within PICTURE_BYTES, at half a byte per pixel."""
    return int(np.clip(np.sqrt(2 * PICTURE_BYTES / max(pictures, 1)), 96, 360))


def _cell(caption: str, picture: np.ndarray, side: int) -> dict[str, str]:
    photograph = caption == "image"
    factor = side / max(picture.shape[:2])
    if factor < 1:
        size = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if photograph else cv2.INTER_NEAREST)
    elif not photograph and factor >= 2:
        # Browsers blur what they enlarge; labels must keep their edges.
        picture = picture.repeat(int(factor), axis=0).repeat(int(factor), axis=1)
    return {"caption": caption, "uri": data_uri(picture, jpeg=photograph)}


def _curve_figures(section: Section, names: Sequence[str]) -> list[dict[str, str]]:
    figures = []
    for title, columns, factor, ylabel, note in (
        ("Validation mIoU by epoch", ("val_miou",), 100, "validation mIoU, points", "Thin lines are further seeds."),
        (
            "Loss by epoch",
            ("train_loss", "val_loss"),
            1,
            "loss",
            "Solid: training, dashed: validation. Different losses have different scales and cannot be compared.",
        ),
    ):
        lines, ends = [], []
        for model in section.comparison.models:
            for member in model.members:
                history = section.histories.get(member.name)
                if history is None:
                    continue
                for column in columns:
                    y = factor * history[column].to_numpy(np.float64)
                    lines.append(Curve(model=model.name, x=list(history["epoch"]), y=list(y), dashed=column == "val_loss"))
                    ends.append(f"{member.name} {column} {y[-1]:.3g}")
        if lines:
            svg = curves(lines, models=names, xlabel="epoch", ylabel=ylabel)
            figures.append({"title": title, "note": note, "alt": f"{title}; at the end " + ", ".join(ends), "uri": figure_uri(svg)})
    return figures


def _cost_figures(comparison: Comparison, names: Sequence[str]) -> list[dict[str, str]]:
    figures = []
    for key, title in COSTS[:2]:
        known = [m for m in comparison.models if m.cost.get(key)]
        if len(known) < 2:
            continue
        scores = [m.scores[HEADLINE] for m in known]
        front = pareto_front([m.cost[key] for m in known], [s.value for s in scores])
        drawn = [
            Point(model=m.name, x=m.cost[key], y=100 * s.value, low=100 * s.low, high=100 * s.high, front=f)
            for m, s, f in zip(known, scores, front, strict=True)
        ]
        svg = cost_against_score(drawn, models=names, xlabel=title, ylabel="test mIoU, points")
        ends = ", ".join(f"{p.model}: {short(p.x)} and {p.y:.1f} points" for p in drawn)
        note = "Large dots: no other model is both cheaper and better (Pareto front, dotted). Bars: intervals over images."
        figures.append({"title": f"mIoU against {title}", "note": note, "alt": f"{title} and mIoU: {ends}", "uri": figure_uri(svg)})
    return figures
