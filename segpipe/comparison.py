"""Which model is better, by how much, and is it real: all models of one dataset, all pairs of them, and the verdicts in words.

Everything derives from per-image confusion counts; the statistics are in `resampling.py`. Rows that differ only in their seed are
replicates of one model: its score is the mean over them, and their spread is its training noise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np

from segpipe.resampling import (
    Metric,
    PairResult,
    bootstrap,
    effect_size,
    holm,
    interval,
    mean_defined,
    mean_per_unit,
    paired_test,
    units_of,
    welch_p,
    wilcoxon_p,
)
from segpipe.verdicts import verdict

HEADLINE = "miou"
WITH_INTERVAL = ("miou", "mpa")
"""The scores whose intervals stand in leaderboard.csv; comparison.json has all."""
COSTS = dict(parameters="parameters", train_seconds="wall_seconds", images_per_second="images_per_second", gflops="gflops")
"""Columns of leaderboard.csv and the keys of cost.json that fill them."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One trained network on one test split. `counts` is int64 (N, K, K); equal `recipe`: the same model but for its seed.

    `cost` holds what the training run wrote (`parameters`, `wall_seconds`, ...); `groups` may hold "" for an image of its own.
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
    """A score in 0..1 (mean over seeds), its bootstrap interval over images, and its sd over seeds (None for one seed)."""

    value: float
    low: float
    high: float
    training_sd: float | None = None


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
    """One model. Scores, cost, mIoU `per_image` (N,) and IoU `per_class` (K,) are means over its members."""

    name: str
    members: tuple[Member, ...]
    scores: dict[str, Score]
    per_image: np.ndarray
    per_class: np.ndarray
    cost: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models of one dataset, `a` the one that scores higher. `better` is None where there is no evidence of a difference.

    `p_holm` is `test.p` after Holm's correction over all pairs. `wilcoxon_p` (zeros by Pratt) and `effect` (mean / sd, d_z) are
    of paired differences of per-image mIoU, averaged within units; wins, ties and losses of a count images. `p_seeds` is Welch's
    test over the replicates' scores, None unless both models have at least two seeds.
    """

    a: str
    b: str
    test: PairResult
    p_holm: float
    wilcoxon_p: float
    effect: float | None
    wins: int
    ties: int
    losses: int
    p_seeds: float | None
    better: str | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All models of one dataset, best first, and all pairs of them. `unit` is "image", "group" or "run" (see `units_of`)."""

    dataset: str
    dataset_digest: str
    ids: tuple[str, ...]
    units: int
    unit: str
    resamples: int
    alpha: float
    models: tuple[Model, ...]
    pairs: tuple[Pair, ...]


def compare(
    scored: Sequence[Scored],
    *,
    metrics: Mapping[str, Metric],
    per_class: Metric,
    resamples: int,
    alpha: float,
    seed: int,
) -> Comparison:
    """Compare the models of one dataset. `metrics` must hold "miou", which ranks and tests; `per_class` returns (..., K).

    `resamples` is of bootstrap draws and of swaps of labels; where there are many pairs, more swaps are drawn.

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
    models = []
    counts_of, draws = dict[str, np.ndarray](), dict[str, np.ndarray]()
    for members in _families(scored):
        counts = np.stack([m.counts for m in members])
        drawn = bootstrap(counts, units, metrics=metrics, resamples=resamples, seed=seed)
        model = _model(members, counts, drawn, metrics=metrics, per_class=per_class, alpha=alpha)
        models.append(model)
        counts_of[model.name], draws[model.name] = counts, drawn[HEADLINE].mean(axis=0)
    models.sort(key=lambda m: -m.scores[HEADLINE].value)
    pairs = list(combinations(models, 2))
    swaps = max(resamples, math.ceil(5 * len(pairs) / alpha))  # else Holm would lift the smallest possible p above alpha
    tests = [
        paired_test(
            counts_of[a.name],
            counts_of[b.name],
            first.groups,
            metric=metrics[HEADLINE],
            resamples=swaps,
            alpha=alpha,
            seed=seed,
            bootstrapped=draws[a.name] - draws[b.name],
        )
        for a, b in pairs
    ]
    corrected = holm([test.p for test in tests])
    return Comparison(
        dataset=first.dataset,
        dataset_digest=first.dataset_digest,
        ids=tuple(first.ids),
        units=int(units.max()) + 1,
        unit=unit,
        resamples=resamples,
        alpha=alpha,
        models=tuple(models),
        pairs=tuple(_pair(a, b, t, p, units, alpha=alpha) for (a, b), t, p in zip(pairs, tests, corrected, strict=True)),
    )


def document(comparison: Comparison) -> dict[str, Any]:
    """`comparison` as plain JSON: arrays become lists, and what is undefined becomes null."""
    return dict(_plain(asdict(comparison)))


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


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def _families(scored: Sequence[Scored]) -> list[list[Scored]]:
    families: dict[str, list[Scored]] = {}
    for one in scored:
        families.setdefault(one.recipe, []).append(one)
    return list(families.values())


def _model(
    members: Sequence[Scored],
    counts: np.ndarray,
    drawn: Mapping[str, np.ndarray],
    *,
    metrics: Mapping[str, Metric],
    per_class: Metric,
    alpha: float,
) -> Model:
    totals, per_image = counts.sum(axis=1), metrics[HEADLINE](counts)
    scores: dict[str, Score] = {}
    member_scores: list[dict[str, Score]] = [{} for _ in members]
    for name, metric in metrics.items():
        values = metric(totals)
        low, high = interval(drawn[name].mean(axis=0), alpha=alpha)
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        scores[name] = Score(value=float(values.mean()), low=low, high=high, training_sd=sd)
        for own, value, draws in zip(member_scores, values, drawn[name], strict=True):
            low, high = interval(draws, alpha=alpha)
            own[name] = Score(value=float(value), low=low, high=high)
    return Model(
        name=min(members, key=lambda m: len(m.name)).name,
        members=tuple(
            Member(m.name, m.architecture, m.loss, m.seed, scores=own, per_image=images, cost=dict(m.cost))
            for m, own, images in zip(members, member_scores, per_image, strict=True)
        ),
        scores=scores,
        per_image=mean_defined(per_image),
        per_class=mean_defined(per_class(totals)),
        cost=_mean_cost([m.cost for m in members]),
    )


def _mean_cost(costs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The means of the numbers in `costs`; words, such as the device's name, are left out."""
    numbers = [{key: value for key, value in cost.items() if isinstance(value, int | float)} for cost in costs]
    return {key: float(np.mean([n[key] for n in numbers if key in n])) for key in sorted(set().union(*numbers))}


def _pair(a: Model, b: Model, test: PairResult, p_holm: float, units: np.ndarray, *, alpha: float) -> Pair:
    # Rounded, so that equal differences are ties whatever the order of the sums.
    differences = np.round(a.per_image - b.per_image, 12)
    per_unit = np.round(mean_per_unit(differences, units), 12)
    p_seeds = welch_p(*([member.scores[HEADLINE].value for member in m.members] for m in (a, b)))
    return Pair(
        a=a.name,
        b=b.name,
        test=test,
        p_holm=p_holm,
        wilcoxon_p=wilcoxon_p(per_unit),
        effect=effect_size(per_unit),
        wins=int((differences > 0).sum()),
        ties=int((differences == 0).sum()),
        losses=int((differences < 0).sum()),
        p_seeds=p_seeds,
        better=a.name if p_holm < alpha else None,
        verdict=verdict(
            (a.name, b.name),
            test,
            p_holm=p_holm,
            alpha=alpha,
            training_sds=(a.scores[HEADLINE].training_sd, b.scores[HEADLINE].training_sd),
            seeds=(len(a.members), len(b.members)),
            p_seeds=p_seeds,
        ),
    )
