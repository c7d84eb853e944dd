"""Where errors gather: rates of error of each class's segments against their attributes, with the rate of false discoveries held.

Tested is each class (the share of a segment's pixels that is wrong) and each class pair with enough errors (at least half of the
segment went to the other class) against each attribute: its cuts at the deciles, or its levels, by `permutation_test` with images
as units. Benjamini and Hochberg's correction runs over all tests of the split.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from segpipe.failures.permutation import DRAWS, ROUNDS, permutation_test

MIN_CELL, FEW = 30, 10
"""Segments on either side of a cut: MIN_CELL, or a fifth of the class's where it has fewer than 150 of them, but at least FEW."""
MIN_UNITS = 5
"""Independent images on either side of a cut, and with errors of the pair."""
MIN_ERRORS = 8
"""Segments that a class pair has at least, to be tested."""
MIN_DIFFERENCE, MIN_LIFT = 0.1, 1.5
"""Associations that are smaller are not worth a sentence, however certain they are."""
ALIKE = 0.5
"""Two cells with at least this correlation (phi) are two sides of one thing, also where their cuts do not quite agree."""
RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class Association:
    """Segments of `true` fail (as `predicted`; None: in any way) more often where `attribute` is low, high or one level.

    `cut` is the number below or above which, or the level. `rate` and `rate_else` are means over `regions` and `others` segments of
    `images` units; `lift` = rate / rate_else (half an error added to each) with its 95 % bootstrap interval over units.
    `strength` is the standardised difference; `rows` are the class's positions in the table of segments, `inside` which of them lie
    in the cell, `middle` and `middle_else` the attribute's medians in and out of it.
    """

    true: int
    predicted: int | None
    attribute: str
    side: str
    cut: float | str
    rate: float
    rate_else: float
    regions: int
    others: int
    images: int
    lift: float
    low: float
    high: float
    p: float
    q: float
    strength: float
    rows: np.ndarray
    inside: np.ndarray
    middle: float
    middle_else: float


@dataclass(frozen=True)
class Suspicion:
    """One cause that may be behind several associations of one class pair: `lead` stands for it, `also` goes with it."""

    lead: Association
    also: tuple[Association, ...]


@dataclass(frozen=True, eq=False)
class _Cells:
    """The cells of all attributes for the segments of one class: z float32 (n, C), and of each cell its attribute and its cut."""

    z: np.ndarray
    attribute: np.ndarray
    cuts: list[float | str]


def least_cell(segments: int) -> int:
    """How many segments a cell of a class with so many `segments` needs."""
    return max(FEW, min(MIN_CELL, segments // 5))


def associate(
    segments: pd.DataFrame, names: Sequence[str], *, num_classes: int, seed: int, alpha: float = 0.05
) -> tuple[list[Association], int]:
    """The associations that hold at a false discovery rate of `alpha`, the strongest first, and the number of tests.

    Args:
        segments: columns unit, class, confused, wrong, and the attributes `names` (see `attributes.Attributes`).
    """
    found, corrected = _search(segments, names, num_classes, seed, rounds=1)
    if any(one.p < 2 / DRAWS and q > alpha for one, q in zip(found, corrected, strict=True)):
        # What no permutation reached may yet hold where p is known more finely.
        found, corrected = _search(segments, names, num_classes, seed, rounds=ROUNDS)
    held = [
        replace(one, q=float(q))
        for one, q in zip(found, corrected, strict=True)
        if q <= alpha and one.rate - one.rate_else >= MIN_DIFFERENCE and one.rate >= MIN_LIFT * one.rate_else
    ]
    held = _described(held, segments, seed)
    return sorted(held, key=lambda one: (-one.strength, one.true, one.attribute)), len(found)


def suspicions(
    associations: Sequence[Association], segments: pd.DataFrame, *, seed: int, most: int = 2, alpha: float = 0.05
) -> list[Suspicion]:
    """Group associations of equal classes by cause: the strongest leads, and those that are like it or add nothing go with it.

    Whether one adds something is tested again on what the leaders leave unexplained: the outcome less its mean in each of
    the cells that they cut (Bonferroni's correction over those that are left). At most `most` leaders per class pair.
    """
    result: list[Suspicion] = []
    for pair in dict.fromkeys((one.true, one.predicted) for one in associations):
        rest = [one for one in associations if (one.true, one.predicted) == pair]
        units = segments["unit"].to_numpy()[rest[0].rows]
        outcome = _outcome(segments, rest[0])
        strata = np.zeros(len(outcome), np.int64)
        while rest and most > sum(s.lead.true == pair[0] and s.lead.predicted == pair[1] for s in result):
            lead, *rest = rest
            strata = 2 * strata + lead.inside
            left = outcome - _means(outcome, strata)
            also = []
            if rest:
                z, count = np.stack([one.inside for one in rest], axis=1).astype(np.float32), len(rest)
                tested = permutation_test(left[:, None], z, np.arange(count), units, attributes=count, seed=seed, rounds=1)
                gain = [float(left[one.inside].mean() - left[~one.inside].mean()) for one in rest]
                alike = [float(np.corrcoef(one.inside, lead.inside)[0, 1]) >= ALIKE for one in rest]
                adds = (tested.p[0] <= alpha / count) & (np.array(gain) >= MIN_DIFFERENCE) & ~np.array(alike)
                also = [one for one, adds_something in zip(rest, adds, strict=True) if not adds_something]
                rest = [one for one, adds_something in zip(rest, adds, strict=True) if adds_something]
            result.append(Suspicion(lead, tuple(also)))
    return result


def _search(
    segments: pd.DataFrame, names: Sequence[str], num_classes: int, seed: int, *, rounds: int
) -> tuple[list[Association], np.ndarray]:
    """All tests, and their p after Benjamini and Hochberg's correction."""
    found: list[Association] = []
    for c in range(num_classes):
        rows = np.flatnonzero(segments["class"].to_numpy() == c)
        if len(rows) >= 2 * FEW:
            # Sorted by unit, as the permutation needs them; the order inside a unit is the table's.
            rows = rows[np.argsort(segments["unit"].to_numpy()[rows], kind="stable")]
            found += _of_class(segments, rows, names, c, seed, rounds)
    return found, stats.false_discovery_control([one.p for one in found]) if found else np.zeros(0)


def _of_class(segments: pd.DataFrame, rows: np.ndarray, names: Sequence[str], c: int, seed: int, rounds: int) -> list[Association]:
    """All tests of one class; q and the lift are still open."""
    mine = segments.iloc[rows]
    units, confused = mine["unit"].to_numpy(), mine["confused"].to_numpy()
    outcomes: dict[int | None, np.ndarray] = {}
    wrong = mine["wrong"].to_numpy(np.float64)
    if (wrong >= 0.5).sum() >= MIN_ERRORS:
        outcomes[None] = wrong
    for p in np.unique(confused[confused >= 0]):
        hit = confused == p
        if hit.sum() >= MIN_ERRORS and len(np.unique(units[hit])) >= MIN_UNITS:
            outcomes[int(p)] = hit.astype(np.float64)
    cells = _cells(mine, names, units)
    if not outcomes or not cells.cuts:
        return []
    y = np.stack(list(outcomes.values()), axis=1)
    tested = permutation_test(y - y.mean(axis=0), cells.z, cells.attribute, units, attributes=len(names), seed=seed, rounds=rounds)
    result = []
    for i, predicted in enumerate(outcomes):
        for a in np.unique(cells.attribute):
            low_fails, cell = tested.strength[i, a] > 0, int(tested.best[i, a])
            below = cells.z[:, cell] > 0
            level = isinstance(cells.cuts[cell], str)
            inside = below if low_fails or level else ~below
            result.append(
                Association(
                    true=c,
                    predicted=predicted,
                    attribute=names[a],
                    side="is" if level else "low" if low_fails else "high",
                    cut=cells.cuts[cell],
                    rate=float(y[inside, i].mean()),
                    rate_else=float(y[~inside, i].mean()),
                    regions=int(inside.sum()),
                    others=int((~inside).sum()),
                    images=len(np.unique(units[inside])),
                    lift=float("nan"),
                    low=float("nan"),
                    high=float("nan"),
                    p=float(tested.p[i, a]),
                    q=1.0,
                    strength=abs(float(tested.strength[i, a])),
                    rows=rows,
                    inside=inside,
                    middle=float("nan"),
                    middle_else=float("nan"),
                )
            )
    return result


def _cells(mine: pd.DataFrame, names: Sequence[str], units: np.ndarray) -> _Cells:
    """The cells with enough segments and units on both sides. An unknown number counts as the median."""
    least = least_cell(len(mine))
    z: list[np.ndarray] = []
    attribute: list[int] = []
    cuts: list[float | str] = []
    for a, name in enumerate(names):
        for cut, inside in _cuts(mine[name].to_numpy()):
            count = int(inside.sum())
            if least <= count <= len(mine) - least:
                z.append(inside)
                attribute.append(a)
                cuts.append(cut)
    stacked = np.stack(z, axis=1) if z else np.zeros((len(mine), 0), bool)
    starts = np.flatnonzero(np.diff(units, prepend=units[0] - 1))
    seen = [np.logical_or.reduceat(side, starts, axis=0).sum(axis=0) for side in (stacked, ~stacked)]
    kept = np.flatnonzero(np.minimum(*seen) >= MIN_UNITS)
    return _Cells(stacked[:, kept].astype(np.float32), np.array(attribute, np.int64)[kept], [cuts[k] for k in kept])


def _cuts(values: np.ndarray) -> Iterator[tuple[float | str, np.ndarray]]:
    """(cut, which segments lie below it) at the deciles of numbers, (level, which have it) of words."""
    if values.dtype == object:
        yield from ((level, values == level) for level in sorted(set(values)))
        return
    numbers = values.astype(np.float64)
    if np.isnan(numbers).all():
        return
    numbers = np.where(np.isnan(numbers), np.nanmedian(numbers), numbers)
    levels = np.unique(numbers)
    for low in np.unique(np.quantile(numbers, np.arange(0.1, 1, 0.1), method="lower")):
        above = levels[levels > low]
        if len(above):
            yield float(low + above[0]) / 2, numbers <= low


def _outcome(segments: pd.DataFrame, one: Association) -> np.ndarray:
    if one.predicted is None:
        return segments["wrong"].to_numpy(np.float64)[one.rows]
    return (segments["confused"].to_numpy()[one.rows] == one.predicted).astype(np.float64)


def _means(values: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Each value's mean in its stratum."""
    _, index = np.unique(strata, return_inverse=True)
    return (np.bincount(index, values) / np.bincount(index))[index]


def _described(found: list[Association], segments: pd.DataFrame, seed: int) -> list[Association]:
    """The associations with their lifts and intervals (four sums each, resampled by unit) and their medians."""
    drawn: dict[int, np.ndarray] = {}
    result = []
    for one in found:
        outcome, inside = _outcome(segments, one), one.inside
        _, index = np.unique(segments["unit"].to_numpy()[one.rows], return_inverse=True)
        columns = [outcome * inside, inside, outcome * ~inside, ~inside]
        sums = np.stack([np.bincount(index, np.asarray(column, np.float64)) for column in columns], axis=1)
        if one.true not in drawn:
            rng, count = np.random.default_rng([seed, 102, one.true]), len(sums)
            drawn[one.true] = rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(np.float64)
        low, high = np.quantile(_lift(drawn[one.true] @ sums), [0.025, 0.975])
        one = replace(one, lift=float(_lift(sums.sum(axis=0))), low=float(low), high=float(high))
        if not isinstance(one.cut, str):
            values = segments[one.attribute].to_numpy(np.float64)[one.rows]
            one = replace(one, middle=float(np.nanmedian(values[inside])), middle_else=float(np.nanmedian(values[~inside])))
        result.append(one)
    return result


def _lift(sums: np.ndarray) -> np.ndarray:
    inside = (sums[..., 0] + 0.5) / (sums[..., 1] + 1)
    outside = (sums[..., 2] + 0.5) / (sums[..., 3] + 1)
    ratio: np.ndarray = inside / outside
    return ratio
