"""Chance in scores of test images: bootstrap, jackknife, label-swap tests, Holm's correction. Plain arrays in, plain numbers out.

The unit of chance is the image, or the group of images that belong together (a sequence, a patient); never the pixel. Every score
is a dataset-level one: counts are summed first, and each resample sums them anew. Methods: Efron's bootstrap, whose intervals are
in `intervals.py`; Fisher's randomisation test; the advice of Maier-Hein et al., "Metrics reloaded" (Nat Methods 2024), on what to
report.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from segpipe.intervals import HEADLINE_METHOD, Spread, spread

Metric = Callable[[np.ndarray], np.ndarray]
"""Confusion counts (..., K, K) to scores (...), or to one for each class (..., K)."""

EXACT_UNITS = 16
"""Up to so many units every swap of labels is enumerated, and p is exact."""
FEWEST_GROUPS = 10
"""With fewer groups than this an interval over groups says next to nothing; runs of images inside them stand in."""
RUNS = 20
BLOCK_BYTES = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class PairResult:
    """Score of a less score of b, its bootstrap interval, and the two-sided p of the label-swap test (exact or drawn).

    `ci_low` and `ci_high` are those of the chosen method; `spread` has both methods' and the bootstrap sd.
    """

    difference: float
    ci_low: float
    ci_high: float
    p: float
    exact: bool
    spread: Spread


@dataclass(frozen=True, kw_only=True)
class SwapTest:
    """A difference of two models' scores, the p of the label-swap test, and how far swaps scatter the difference around 0.

    Each is float64 () or (K,); NaN where undefined.
    """

    difference: np.ndarray
    p: np.ndarray
    sd: np.ndarray
    exact: bool


def units_of(groups: Sequence[str]) -> tuple[np.ndarray, str]:
    """The independent unit of each image, int64 (N,) from 0, and its kind.

    "image": every image is its own group (or has none, ""). "group": images of one group stand or fall together. "run": there are
    fewer than 10 groups, so each is cut into runs of consecutive images, about 20 in all: intervals then speak of other
    stretches of the same groups, not of other groups.
    """
    named = [group or f"\0{i}" for i, group in enumerate(groups)]
    index = np.unique(named, return_inverse=True)[1].astype(np.int64)
    images, count = len(named), int(index.max()) + 1
    if count == images:
        return np.arange(images), "image"
    if count >= FEWEST_GROUPS:
        return index, "group"
    units = np.empty(images, np.int64)
    start = 0
    for group in range(count):
        members = np.flatnonzero(index == group)
        pieces = min(len(members), max(1, round(RUNS * len(members) / images)))
        for piece in np.array_split(members, pieces):
            units[piece] = start
            start += 1
    return units, "image" if start == images else "run"


def bootstrap(
    counts: np.ndarray, units: np.ndarray, *, metrics: Mapping[str, Metric], resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Scores of `resamples` test sets drawn with replacement from the units, {metric: float64 (S, resamples) or (S, resamples, K)}.

    `counts` is (S, N, K, K) of S replicates; equal `units` and `seed` draw the same test sets, whatever the counts, so that
    scores of two models are paired draw by draw.
    """
    totals = _per_unit(counts, units)
    n, shape = totals.shape[1], counts.shape[2:]
    rng = np.random.default_rng(seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    for rows in _blocks(resamples, max(totals.shape[2] * len(totals), n)):
        drawn = rng.integers(0, n, (rows, n)) + n * np.arange(rows)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)
        sums = _whole(weights @ totals, shape)
        for name, metric in metrics.items():
            parts[name].append(metric(sums))
    return {name: np.concatenate(values, axis=1) for name, values in parts.items()}


def jackknife(counts: np.ndarray, units: np.ndarray, *, metrics: Mapping[str, Metric]) -> dict[str, np.ndarray]:
    """Scores without each unit in turn, of counts (S, N, K, K): {metric: float64 (S, U)}, or (S, U, K); NaN where undefined."""
    totals = _per_unit(counts, units)
    left = _whole(totals.sum(axis=1, keepdims=True) - totals, counts.shape[2:])
    return {name: metric(left) for name, metric in metrics.items()}


def paired_test(
    counts_a: np.ndarray,
    counts_b: np.ndarray,
    groups: Sequence[str],
    *,
    metric: Metric,
    resamples: int,
    seed: int,
    alpha: float = 0.05,
    method: str = HEADLINE_METHOD,
) -> PairResult:
    """Is a better than b on these images? Counts (N, K, K), or (S, N, K, K) for S replicates; the same images in the same order.

    The score of a model is the mean over its replicates. The interval is a bootstrap one by `method` (see `intervals.py`), the
    p that of `swap_test`.
    """
    a, b = (c if c.ndim == 4 else c[None] for c in (counts_a, counts_b))
    assert a.shape[1:] == b.shape[1:] and len(groups) == a.shape[1], f"{a.shape} and {b.shape} are not the same images"
    units, metrics = units_of(groups)[0], {"": metric}
    tested = swap_test(a, b, units, metrics=metrics, resamples=resamples, seed=seed)[""]
    draws, left = (
        one.mean(axis=0) - other.mean(axis=0)
        for one, other in (
            [bootstrap(c, units, metrics=metrics, resamples=resamples, seed=seed)[""] for c in (a, b)],
            [jackknife(c, units, metrics=metrics)[""] for c in (a, b)],
        )
    )
    difference = float(tested.difference)
    chance = spread(draws, difference, left, alpha=alpha, method=method)
    return PairResult(
        difference=difference, ci_low=chance.low, ci_high=chance.high, p=float(tested.p), exact=tested.exact, spread=chance
    )


def swap_test(
    a: np.ndarray, b: np.ndarray, units: np.ndarray, *, metrics: Mapping[str, Metric], resamples: int, seed: int
) -> dict[str, SwapTest]:
    """For each metric, whether models a (Sa, N, K, K) and b (Sb, N, K, K) differ: the label-swap test on dataset-level scores.

    The statistic is the difference of the scores, each the mean over the model's replicates. If the two models were alike,
    swapping their names on any one unit would change nothing: p is the share of swaps with a difference at least as large (all
    of them up to 16 units; else `resamples` random ones, with 1 added above and below). Every replicate of a is paired with
    every one of b and all pairs swap the same units, so that the numbers of replicates may differ. What this holds fixed is the
    trained weights: it says nothing of other seeds.
    """
    swapped = _swapped(_per_unit(a, units), _per_unit(b, units), a.shape[2:], metrics, resamples=resamples, seed=seed)
    exact = int(units.max()) < EXACT_UNITS
    tests = {}
    for name, metric in metrics.items():
        observed = metric(a.sum(axis=1)).mean(axis=0) - metric(b.sum(axis=1)).mean(axis=0)
        defined = ~np.isnan(swapped[name])
        extreme = (np.abs(np.where(defined, swapped[name], 0)) >= np.abs(observed) - 1e-12) & defined
        count, among = extreme.sum(axis=0), defined.sum(axis=0)
        p = count / np.maximum(among, 1) if exact else (1 + count) / (1 + among)
        sd = np.sqrt(np.where(defined, swapped[name] ** 2, 0).sum(axis=0) / np.maximum(among, 1))
        undefined = np.isnan(observed)
        tests[name] = SwapTest(
            difference=observed, p=np.where(undefined, np.nan, p), sd=np.where(undefined, np.nan, sd), exact=exact
        )
    return tests


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given: testing all of them at alpha errs at most with probability alpha."""
    corrected = [0.0] * len(p_values)
    worst = 0.0
    for rank, i in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = worst
    return corrected


def wilcoxon_p(differences: np.ndarray, *, zeros: str = "pratt") -> float:
    """Two-sided p of Wilcoxon's signed-rank test, normal approximation; 1 if all differences are zero.

    `zeros` is "pratt" (ranked with the others, then left out) or "wilcox" (left out first). Equal differences are ties only if
    they are equal to the last bit: round them before.
    """
    if not differences.any():
        return 1.0
    return float(stats.wilcoxon(differences, zero_method=zeros, method="asymptotic").pvalue)


def effect_size(differences: np.ndarray) -> float | None:
    """Cohen's d_z of paired differences: mean / sd (n - 1); None where the sd is zero or there is one difference only."""
    sd = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    return float(np.mean(differences)) / sd if sd > 1e-12 else None


def welch_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p of Welch's t-test between the scores of two models' replicates; None unless both have at least two."""
    if min(len(a), len(b)) < 2:
        return None
    if np.ptp(a) == np.ptp(b) == 0:
        return 1.0 if a[0] == b[0] else 0.0
    return float(stats.ttest_ind(a, b, equal_var=False).pvalue)


def mean_defined(values: np.ndarray) -> np.ndarray:
    """The mean over the first axis of what is not NaN; NaN where nothing is defined."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    return np.divide(np.where(defined, values, 0).sum(axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)


def mean_per_unit(values: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The means of `values` (N,) within units, NaN left out; units without a defined value are left out too."""
    defined = ~np.isnan(values)
    count = np.bincount(units[defined], minlength=int(units.max()) + 1)
    return np.bincount(units[defined], values[defined], minlength=len(count))[count > 0] / count[count > 0]


def pareto_front(costs: Sequence[float | None], scores: Sequence[float]) -> list[bool]:
    """Which points no other one beats (costs no more, scores no less, and differs); an unknown cost is on no front."""
    points = [(math.inf if c is None else c, s) for c, s in zip(costs, scores, strict=True)]
    return [c < math.inf and not any(oc <= c and os >= s and (oc, os) != (c, s) for oc, os in points) for c, s in points]


def _per_unit(counts: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Sums of counts (S, N, ...) within units, float64 (S, U, M): whole numbers below 2^53 stay exact in it."""
    flat = counts.reshape(*counts.shape[:2], -1)
    sums = np.zeros((len(flat), int(units.max()) + 1, flat.shape[2]))
    for total, one in zip(sums, flat, strict=True):
        np.add.at(total, units, one)
    return sums


def _swapped(
    a: np.ndarray, b: np.ndarray, shape: tuple[int, ...], metrics: Mapping[str, Metric], *, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Differences of the scores after swapping names on units: a (Sa, U, M), b (Sb, U, M); {metric: (number of swaps, ...)}."""
    n = a.shape[1]
    exact = n <= EXACT_UNITS
    rng = np.random.default_rng([seed, 1])
    total_a, total_b = a.sum(axis=1), b.sum(axis=1)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    done = 0
    # Swapping the complement gives the same difference with the other sign, so half of the 2^n swaps are enough for |difference|.
    for rows in _blocks(2 ** (n - 1) if exact else resamples, max(2 * a.shape[2] * (len(a) + len(b)), n)):
        codes = np.arange(done, done + rows)[:, None] >> np.arange(n) & 1 if exact else rng.integers(0, 2, (rows, n))
        weights = codes.astype(np.float64)
        moved_a, moved_b = weights @ a, weights @ b
        sums: dict[str, np.ndarray] = {}
        for i in range(len(a)):
            for j in range(len(b)):
                delta = moved_b[j] - moved_a[i]
                one, other = _whole(total_a[i] + delta, shape), _whole(total_b[j] - delta, shape)
                for name, metric in metrics.items():
                    sums[name] = sums.get(name, 0.0) + (metric(one) - metric(other))
        for name, total in sums.items():
            parts[name].append(total / (len(a) * len(b)))
        done += rows
    return {name: np.concatenate(values) for name, values in parts.items()}


def _whole(sums: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sums of counts (..., M) as the int64 counts (..., K, K) that metrics take."""
    return np.rint(sums).astype(np.int64).reshape(*sums.shape[:-1], *shape)


def _blocks(total: int, width: int) -> Iterator[int]:
    """Block lengths that add up to `total`, so that a float64 block of `width` columns stays within BLOCK_BYTES."""
    size = max(1, BLOCK_BYTES // (8 * width))
    for start in range(0, total, size):
        yield min(size, total - start)
