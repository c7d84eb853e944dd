"""Two models on the same test images: their difference, its interval, the tests, and class by class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from segpipe.intervals import Spread, spread
from segpipe.model_scores import CLASSES, HEADLINE, Model, Sampled
from segpipe.power import More, more_words, units_needed
from segpipe.resampling import (
    Metric,
    PairResult,
    SwapTest,
    effect_size,
    holm,
    mean_per_unit,
    swap_test,
    welch_p,
    wilcoxon_p,
)
from segpipe.verdicts import verdict


@dataclass(frozen=True, kw_only=True)
class ClassDifference:
    """IoU of one class: that of a less that of b, its interval, p of the label-swap test, and p after Holm over the classes."""

    difference: float
    ci_low: float
    ci_high: float
    p: float
    p_holm: float


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two models of one dataset, `a` the one that scores higher. `better` is None where there is no evidence of a difference.

    `p_holm` is `test.p` after Holm's correction over all pairs. `wilcoxon_p` (zeros by Pratt) and `effect` (mean / sd, d_z) are
    of paired differences of per-image mIoU, averaged within units; wins, ties and losses of a count images. `p_seeds` is Welch's
    test over the replicates' scores, None unless both models have at least two seeds. `more_units` and `more_images` are how
    many more would be needed to see 1 mIoU point, 0 where these were enough. `classes` has one entry per class, None where a
    class is in neither truth nor prediction.
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
    more_units: int
    more_images: int
    better: str | None
    verdict: str
    classes: tuple[ClassDifference | None, ...]


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A pair before the correction over all pairs."""

    models: tuple[Model, Model]
    test: PairResult
    swap_sd: float
    classes: tuple[ClassDifference | None, ...]


def compare_two(
    models: tuple[Model, Model],
    sampled: tuple[Sampled, Sampled],
    units: np.ndarray,
    *,
    metric: Metric,
    per_class: Metric,
    swaps: int,
    alpha: float,
    method: str,
    seed: int,
) -> Tested:
    """Test two models with as many `swaps` of labels; classes are corrected by Holm among themselves."""
    a, b = sampled
    metrics: Mapping[str, Metric] = {HEADLINE: metric, CLASSES: per_class}
    tests = swap_test(a.counts, b.counts, units, metrics=metrics, resamples=swaps, seed=seed)
    draws, left = ({name: one[name] - other[name] for name in metrics} for one, other in ((a.draws, b.draws), (a.left, b.left)))

    def chance(name: str, *at: int) -> Spread:
        value = float(tests[name].difference[at])
        return spread(draws[name][:, *at], value, left[name][:, *at], alpha=alpha, method=method)

    whole, test = chance(HEADLINE), tests[HEADLINE]
    return Tested(
        models=models,
        test=PairResult(
            difference=float(test.difference),
            ci_low=whole.low,
            ci_high=whole.high,
            p=float(test.p),
            exact=test.exact,
            spread=whole,
        ),
        swap_sd=float(test.sd),
        classes=_classes(tests[CLASSES], [chance(CLASSES, k) for k in range(len(tests[CLASSES].p))]),
    )


def judge(tested: Sequence[Tested], units: np.ndarray, unit: str, *, alpha: float) -> tuple[Pair, ...]:
    """All pairs of one dataset with their corrected p and their verdicts."""
    corrected = holm([one.test.p for one in tested])
    strictest = alpha / max(len(tested), 1)
    return tuple(_pair(one, p, units, unit, alpha=alpha, strictest=strictest) for one, p in zip(tested, corrected, strict=True))


def _classes(test: SwapTest, chances: Sequence[Spread]) -> tuple[ClassDifference | None, ...]:
    known = np.flatnonzero(~np.isnan(test.p))
    corrected = dict(zip(known.tolist(), holm([float(test.p[k]) for k in known]), strict=True))
    return tuple(
        ClassDifference(
            difference=float(test.difference[k]), ci_low=one.low, ci_high=one.high, p=float(test.p[k]), p_holm=corrected[k]
        )
        if k in corrected
        else None
        for k, one in enumerate(chances)
    )


def _pair(tested: Tested, p_holm: float, units: np.ndarray, unit: str, *, alpha: float, strictest: float) -> Pair:
    a, b = tested.models
    test = tested.test
    # Rounded, so that equal differences are ties whatever the order of the sums.
    differences = np.round(a.per_image - b.per_image, 12)
    per_unit = np.round(mean_per_unit(differences, units), 12)
    p_seeds = welch_p(*([member.scores[HEADLINE].value for member in m.members] for m in (a, b)))
    count = int(units.max()) + 1
    more = max(0, units_needed(test.spread.sd, tested.swap_sd, count, alpha=strictest) - count)
    more_images = round(more * len(units) / count)
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
        more_units=more,
        more_images=more_images,
        better=a.name if p_holm < alpha else None,
        verdict=verdict(
            (a.name, b.name),
            test,
            p_holm=p_holm,
            alpha=alpha,
            training_sds=(a.scores[HEADLINE].training_sd, b.scores[HEADLINE].training_sd),
            seeds=(len(a.members), len(b.members)),
            p_seeds=p_seeds,
            more=more_words(More(units=more, unit=unit, images=more_images)),
        ),
        classes=tested.classes,
    )
