"""The comparison page: findings, leaderboard, pairs, chance, classes, pictures, curves and cost, in one HTML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from segpipe.agreement import Agreement
from segpipe.comparison import Comparison
from segpipe.model_pairs import Pair
from segpipe.model_scores import HEADLINE, Model
from segpipe.pages.comparison_pictures import (
    BOTH_WRONG_COLOUR,
    ONLY_A_COLOUR,
    ONLY_B_COLOUR,
    PictureRow,
    Versus,
    encoded,
)
from segpipe.pages.figures import Curve, Point, colour_of, cost_against_score, curves, short
from segpipe.pages.findings import cautions, findings, noise_words
from segpipe.pages.render import figure_uri, render
from segpipe.power import DIFFERENCE, POWER, rounded_up
from segpipe.resampling import pareto_front
from segpipe.wording import p_words, points

PAIRS_SHOWN = 12
CLASS_ROWS = 1500
"""Rows of class-by-class tests on the page; comparison.json has all."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """A column of the table of costs, and whether it is drawn against the score."""

    key: str
    title: str
    phase: str
    drawn: bool = False
    more_is_better: bool = False


COSTS = (
    Cost(key="wall_seconds", title="training seconds", phase="training", drawn=True),
    Cost(key="peak_memory_mb", title="peak memory in training, MB", phase="training", drawn=True),
    Cost(key="images_per_second", title="images per second in training", phase="training", more_is_better=True),
    Cost(key="parameters", title="parameters", phase="prediction"),
    Cost(key="gflops", title="GFLOPs per image", phase="prediction", drawn=True),
    Cost(key="predict_seconds", title="seconds per predicted image", phase="prediction", drawn=True),
    Cost(key="predicted_per_second", title="images per second in prediction", phase="prediction", more_is_better=True),
)


@dataclass(frozen=True, kw_only=True)
class Class:
    """A class as the page shows it: `colour` is (r, g, b), `share` its part of the labelled test pixels."""

    name: str
    colour: tuple[int, int, int]
    share: float


@dataclass(frozen=True, kw_only=True)
class Section:
    """All that the page shows of one dataset. `histories`, and the pages that exist, go by experiment.

    `attention` is what `failures/versus.py` says of pairs of models: {"pairs": its documents, "ratings": what `ratings.count`
    made of people's answers, with the "problems" of reading them, or None, "rate_page": the page to rate on, or None}.
    """

    comparison: Comparison
    classes: Sequence[Class]
    rows: Sequence[PictureRow]
    histories: Mapping[str, pd.DataFrame]
    failures: Mapping[str, str]
    evaluations: Mapping[str, str] = field(default_factory=dict)
    agreements: Sequence[Agreement] = ()
    versus: Sequence[Versus] = ()
    attention: Mapping[str, Any] | None = None


def comparison_page(sections: Sequence[Section]) -> str:
    """The self-contained HTML text of the page, one part per dataset."""
    groups = [rows for section in sections for rows in (section.rows, *(versus.rows for versus in section.versus))]
    pictures = iter(encoded(groups))
    shown = []
    for section in sections:
        rows = next(pictures)
        against = [{"number": i, "a": v.a, "b": v.b, "rows": next(pictures)} for i, v in enumerate(section.versus, start=1)]
        shown.append(_context(section) | {"rows": rows, "versus": against})
    return render("comparison.html", sections=shown)


def _context(section: Section) -> dict[str, Any]:
    comparison = section.comparison
    names = [model.name for model in comparison.models]
    looks = colour_of(names)
    shares = np.array([c.share for c in section.classes])
    scores = [score for m in comparison.models for score in (m.scores[HEADLINE], *(r.scores[HEADLINE] for r in m.members))]
    shown, folded = _shown_pairs(comparison)
    classes = [
        {"name": c.name, "colour": _hex(c.colour), "share": c.share, "ious": ious, "best": best}
        for c, ious, best in zip(section.classes, *_class_table(comparison.models), strict=True)
    ]
    by_class = [*shown, *folded][: max(1, CLASS_ROWS // max(len(section.classes), 1))]
    return {
        "dataset": comparison.dataset,
        "comparison": comparison,
        "level": f"{100 * (1 - comparison.alpha):g}\u00a0%",
        "method": {"percentile": "percentile", "bca": "BCa"}[comparison.method],
        "findings": findings(comparison, [c.name for c in section.classes], shares),
        "cautions": cautions(comparison),
        "noise": noise_words(comparison.models),
        "power": f"{100 * POWER:g} %",
        "visible": f"{100 * DIFFERENCE:g} mIoU point",
        "models": comparison.models,
        "colours": {name: look[0] for name, look in looks.items()},
        "scale": _Scale.around([s.low for s in scores] + [s.high for s in scores]),
        "pair_scale": _Scale.around([0.0, *(v for p in comparison.pairs for v in (p.test.ci_low, p.test.ci_high))]),
        "pairs": (shown, folded),
        "class_pairs": [(pair, _class_scale(pair), list(zip(classes, pair.classes, strict=True))) for pair in by_class],
        "class_pairs_left": len(comparison.pairs) - len(by_class),
        "classes": classes,
        "agreements": section.agreements,
        "agreement_colours": [_hex(c) for c in (ONLY_A_COLOUR, ONLY_B_COLOUR, BOTH_WRONG_COLOUR)],
        "most_wrong": max((1 - agreement.both_right for agreement in section.agreements), default=0.0),
        "figures": [*_curve_figures(section, names), *_cost_figures(comparison, names)],
        "costs": _cost_columns(comparison.models),
        "failures": section.failures,
        "evaluations": section.evaluations,
        "attention": section.attention,
        "points": points,
        "p_words": p_words,
        "short": short,
        "rounded_up": lambda images: f"{rounded_up(images):,}",
    }


def _hex(colour: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


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


def _class_table(models: Sequence[Model]) -> tuple[list[list[Any]], list[float | None]]:
    """Per class the IoU of each model as a `Score` (None = undefined), and the highest value of them."""
    rows = [[None if np.isnan(s.value) else s for s in column] for column in zip(*(m.per_class for m in models), strict=True)]
    return rows, [max((s.value for s in row if s is not None), default=None) for row in rows]


def _class_scale(pair: Pair) -> "_Scale":
    return _Scale.around([0.0, *(v for c in pair.classes if c is not None for v in (c.ci_low, c.ci_high))])


def _cost_columns(models: Sequence[Model]) -> list[dict[str, Any]]:
    """The costs that any model has: their columns, and for each model its value (None = unknown) and whether it is on the front."""
    columns = []
    for cost in COSTS:
        values = [model.cost.get(cost.key) for model in models]
        if all(value is None for value in values):
            continue
        spent = [None if v is None else -v if cost.more_is_better else v for v in values]
        front = pareto_front(spent, [model.scores[HEADLINE].value for model in models])
        columns.append({"cost": cost, "cells": dict(zip((m.name for m in models), zip(values, front, strict=True), strict=True))})
    return columns


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
    for cost in COSTS:
        known = [m for m in comparison.models if m.cost.get(cost.key)]
        if len(known) < 2 or not cost.drawn:
            continue
        scores = [m.scores[HEADLINE] for m in known]
        front = pareto_front([m.cost[cost.key] for m in known], [s.value for s in scores])
        drawn = [
            Point(model=m.name, x=m.cost[cost.key], y=100 * s.value, low=100 * s.low, high=100 * s.high, front=f)
            for m, s, f in zip(known, scores, front, strict=True)
        ]
        svg = cost_against_score(drawn, models=names, xlabel=cost.title, ylabel="test mIoU, points")
        ends = ", ".join(f"{p.model}: {short(p.x)} and {p.y:.1f} points" for p in drawn)
        note = "Large dots: no other model is both cheaper and better (Pareto front, dotted). Bars: intervals over images."
        title = f"mIoU against {cost.title}"
        figures.append({"title": title, "note": note, "alt": f"{cost.title} and mIoU: {ends}", "uri": figure_uri(svg)})
    return figures
