"""What is known of one model on a test split: its scores, and the two kinds of chance in them, kept apart.

Rows that differ only in their seed are replicates of one model: its score is the mean over them, their spread is its training
noise. What other test images would have changed is drawn by the bootstrap.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segpipe.intervals import over_seeds, spread
from segpipe.resampling import Metric, bootstrap, jackknife, mean_defined

HEADLINE = "miou"
"""The metric that ranks models and tests them."""
CLASSES = "iou"
"""Under this name the draws of `Sampled` hold the IoU of each class."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One trained network on one test split. `counts` is int64 (N, K, K); equal `recipe`: the same model but for its seed.

    `cost` holds what the training run wrote (`parameters`, `wall_seconds`, ...) and what predicting took (`predict_seconds` per
    image); `groups` may hold "" for an image of its own.
    """

    name: str
    architecture: str
    loss: str
    seed: int
    recipe: str
    dataset: str
    dataset_digest: str
    ids: Sequence[str]
    groups: Sequence[str]
    counts: np.ndarray
    cost: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A score in 0..1, the mean over seeds, and both kinds of chance in it; NaN where it is undefined.

    Test-set noise: `low` and `high` are the bootstrap interval by the chosen method, `percentile` and `bca` those of both, and
    `test_sd` is the sd of the draws. Training noise: `training_sd` is the sd between seeds and `training_interval` Student's
    interval of the mean over all seeds; None for one seed.
    """

    value: float
    low: float
    high: float
    percentile: tuple[float, float]
    bca: tuple[float, float]
    test_sd: float
    training_sd: float | None = None
    training_interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Member:
    """One replicate of a model: one experiment. `per_image` is its mIoU on each image, float64 (N,), NaN = undefined."""

    name: str
    architecture: str
    loss: str
    seed: int
    scores: dict[str, Score]
    per_image: np.ndarray
    cost: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model. Scores, cost, mIoU `per_image` (N,) and IoU `per_class` (K) are means over its members."""

    name: str
    members: tuple[Member, ...]
    scores: dict[str, Score]
    per_image: np.ndarray
    per_class: tuple[Score, ...]
    cost: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A model's counts int64 (S, N, K, K), and its scores, means over seeds, on other test images: by metric's name, `draws` of
    the bootstrap (R,) or (R, K) and `left`, without each unit (U,) or (U, K)."""

    counts: np.ndarray
    draws: dict[str, np.ndarray]
    left: dict[str, np.ndarray]


def families(scored: Sequence[Scored]) -> list[list[Scored]]:
    """The rows, those with equal recipes together."""
    found: dict[str, list[Scored]] = {}
    for one in scored:
        found.setdefault(one.recipe, []).append(one)
    return list(found.values())


def score_model(
    members: Sequence[Scored],
    units: np.ndarray,
    *,
    metrics: Mapping[str, Metric],
    per_class: Metric,
    resamples: int,
    alpha: float,
    method: str,
    seed: int,
) -> tuple[Model, Sampled]:
    """The model that `members` are the replicates of, and its resampled scores; see `comparison.compare` for the arguments."""
    counts = np.stack([m.counts for m in members])
    every = {**metrics, CLASSES: per_class}
    drawn = bootstrap(counts, units, metrics=every, resamples=resamples, seed=seed)
    left = jackknife(counts, units, metrics=every)
    totals, per_image = counts.sum(axis=1), metrics[HEADLINE](counts)

    def scores_of(values: np.ndarray, draws: np.ndarray, without: np.ndarray) -> Score:
        return _score(values, mean_defined(draws), mean_defined(without), alpha=alpha, method=method)

    values = {name: metric(totals) for name, metric in every.items()}
    model = Model(
        name=min(members, key=lambda m: len(m.name)).name,
        members=tuple(
            Member(
                m.name,
                m.architecture,
                m.loss,
                m.seed,
                scores={n: scores_of(values[n][i : i + 1], drawn[n][i : i + 1], left[n][i : i + 1]) for n in metrics},
                per_image=per_image[i],
                cost=dict(m.cost),
            )
            for i, m in enumerate(members)
        ),
        scores={name: scores_of(values[name], drawn[name], left[name]) for name in metrics},
        per_image=mean_defined(per_image),
        per_class=tuple(
            scores_of(values[CLASSES][:, k], drawn[CLASSES][..., k], left[CLASSES][..., k]) for k in range(counts.shape[-1])
        ),
        cost=_mean_cost([m.cost for m in members]),
    )
    means = ({name: mean_defined(array) for name, array in arrays.items()} for arrays in (drawn, left))
    return model, Sampled(counts=counts, draws=next(means), left=next(means))


def _score(values: np.ndarray, draws: np.ndarray, left: np.ndarray, *, alpha: float, method: str) -> Score:
    """From the scores of the seeds (S,), NaN = undefined."""
    values = values[~np.isnan(values)]
    value = float(values.mean()) if values.size else float("nan")
    chance = spread(draws, value, left, alpha=alpha, method=method)
    several = len(values) > 1
    return Score(
        value=value,
        low=chance.low,
        high=chance.high,
        percentile=chance.percentile,
        bca=chance.bca,
        test_sd=chance.sd,
        training_sd=float(np.std(values, ddof=1)) if several else None,
        training_interval=over_seeds(values, alpha=alpha) if several else None,
    )


def _mean_cost(costs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The means of the numbers in `costs`; words, such as the device's name, are left out."""
    numbers = [{key: value for key, value in cost.items() if isinstance(value, int | float)} for cost in costs]
    return {key: float(np.mean([n[key] for n in numbers if key in n])) for key in sorted(set().union(*numbers))}
