"""Which model is better, by how much, and is it real: all models of one dataset, all pairs of them, and the verdicts in words.

Everything derives from per-image confusion counts; the draws and tests are in `resampling.py`, what is made of them for one model
in `model_scores.py` and for two in `model_pairs.py`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from segpipe.intervals import HEADLINE_METHOD
from segpipe.model_pairs import Pair, compare_two, judge
from segpipe.model_scores import HEADLINE, Model, Scored, families, score_model
from segpipe.ranking import Ranking, ranking
from segpipe.resampling import Metric, units_of

WITH_INTERVAL = ("miou", "mpa")
"""The scores whose intervals stand in leaderboard.csv; comparison.json has all."""
COSTS = dict(
    parameters="parameters",
    train_seconds="wall_seconds",
    images_per_second="images_per_second",
    gflops="gflops",
    peak_memory_mb="peak_memory_mb",
    predict_seconds="predict_seconds",
)
"""Columns of leaderboard.csv and the keys of a model's cost that fill them."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All models of one dataset, best first, and all pairs of them. `unit` is "image", "group" or "run" (see `units_of`).

    `method` is that of the intervals that stand first; `ranking` is the stability of the models' order.
    """

    dataset: str
    dataset_digest: str
    ids: tuple[str, ...]
    units: int
    unit: str
    resamples: int
    alpha: float
    method: str
    models: tuple[Model, ...]
    pairs: tuple[Pair, ...]
    ranking: Ranking


def compare(
    scored: Sequence[Scored],
    *,
    metrics: Mapping[str, Metric],
    per_class: Metric,
    resamples: int,
    alpha: float,
    seed: int,
    method: str = HEADLINE_METHOD,
) -> Comparison:
    """Compare the models of one dataset. `metrics` must hold "miou", which ranks and tests; `per_class` returns (..., K).

    `resamples` is of bootstrap draws and of swaps of labels; where there are many pairs, more swaps are drawn. `method` is
    "percentile" or "bca".

    Raises:
        ValueError: the models were scored on different test images, or no pixel of the test split has a label.
    """
    first = scored[0]
    for other in scored:
        if (other.dataset_digest, list(other.ids)) != (first.dataset_digest, list(first.ids)):
            raise ValueError(
                f"evaluations/{other.name}: not the same test images as evaluations/{first.name}, so the two cannot be compared."
                " Run `dvc repro` so that both are evaluated on the same data."
            )
        assert other.counts.shape == first.counts.shape
    if not first.counts.sum():
        raise ValueError(f"evaluations/{first.name}: no pixel of the test split has a label, so there is nothing to compare")
    units, unit = units_of(first.groups)
    settings: dict[str, Any] = {"alpha": alpha, "method": method, "seed": seed}
    models = [
        score_model(members, units, metrics=metrics, per_class=per_class, resamples=resamples, **settings)
        for members in families(scored)
    ]
    models.sort(key=lambda one: -one[0].scores[HEADLINE].value)
    pairs = list(combinations(models, 2))
    swaps = max(resamples, math.ceil(5 * len(pairs) / alpha))  # else Holm would lift the smallest possible p above alpha
    tested = [
        compare_two((a, b), (of_a, of_b), units, metric=metrics[HEADLINE], per_class=per_class, swaps=swaps, **settings)
        for (a, of_a), (b, of_b) in pairs
    ]
    return Comparison(
        dataset=first.dataset,
        dataset_digest=first.dataset_digest,
        ids=tuple(first.ids),
        units=int(units.max()) + 1,
        unit=unit,
        resamples=resamples,
        alpha=alpha,
        method=method,
        models=tuple(model for model, _ in models),
        pairs=judge(tested, units, unit, alpha=alpha),
        ranking=ranking(np.array([sampled.draws[HEADLINE] for _, sampled in models])),
    )


def document(comparison: Comparison) -> dict[str, Any]:
    """`comparison` as plain JSON: arrays become lists, and what is undefined becomes null."""
    return dict(plain(asdict(comparison)))


def leaderboard(comparison: Comparison) -> list[dict[str, Any]]:
    """One row per experiment, best model first: scores with intervals, and costs (None where unknown)."""
    rows = []
    for model in comparison.models:
        for member in model.members:
            row: dict[str, Any] = {"experiment": member.name, "dataset": comparison.dataset}
            row |= {"architecture": member.architecture, "loss": member.loss, "seed": member.seed}
            for key, score in member.scores.items():
                row[key] = score.value
                if key in WITH_INTERVAL:
                    row |= {f"{key}_ci_low": score.low, f"{key}_ci_high": score.high}
            row |= {column: member.cost.get(key) for column, key in COSTS.items()}
            rows.append(row)
    return rows


def plain(value: Any) -> Any:
    """Values, mappings, sequences and arrays as JSON has them; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
