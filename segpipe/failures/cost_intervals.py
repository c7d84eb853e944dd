"""How sure the costs of errors are: bootstrap intervals of the mIoU that an oracle's fix would gain, over independent units.

A fix moves pixels from their predicted to their true class. Of a class with `tp` right pixels and `union` pixels in truth or
prediction it makes (tp + gained) / (union - lost), where `gained` are the moved pixels of that true class and `lost` those that
had been predicted as it. So a resample needs a few sums per class, never a confusion matrix per kind of error.
"""

from collections.abc import Callable

import numpy as np

from segpipe.intervals import percentile, widened
from segpipe.resampling import bootstrap

RESAMPLES = 1000
ALPHA = 0.05


def pair_intervals(counts: np.ndarray, pairs: np.ndarray, *, units: np.ndarray, seed: int) -> np.ndarray:
    """The interval of the gain of each class pair, float64 (P, 2); NaN where all images are one unit.

    Args:
        counts: confusion counts int64 (N, K, K) of each image.
        pairs: (P, 2) true and predicted class, different ones.
        units: int64 (N,), see `resampling.units_of`.
    """
    pairs = np.asarray(pairs, np.int64).reshape(-1, 2)
    return _intervals(counts, lambda sums: pair_gains(sums, pairs), len(pairs), units=units, seed=seed)


def kind_intervals(counts: np.ndarray, gained: np.ndarray, lost: np.ndarray, *, units: np.ndarray, seed: int) -> np.ndarray:
    """The same for F kinds of error, float64 (F, 2): `gained` and `lost` are int64 (N, F, K) pixels of each image that the fix of
    a kind moves to and from each class."""
    right, union = _right_and_union(counts)
    packed = np.concatenate([right[:, None], union[:, None], gained, lost], axis=1)
    kinds = gained.shape[1]

    def gains(sums: np.ndarray) -> np.ndarray:
        right, union = sums[..., 0, :], sums[..., 1, :]
        return kind_gains(right, union, sums[..., 2 : 2 + kinds, :], sums[..., 2 + kinds :, :])

    return _intervals(packed, gains, kinds, units=units, seed=seed)


def pair_gains(confusion: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The gain in mIoU of each of `pairs` (P, 2), float64 (..., P), for counts (..., K, K)."""
    right, union = _right_and_union(confusion)
    true, predicted = pairs[:, 0], pairs[:, 1]
    moved = confusion[..., true, predicted]
    before = _ratio(right, union)
    total, defined = np.nansum(before, axis=-1)[..., None], (union > 0).sum(axis=-1)[..., None]
    old_true, old_predicted = before[..., true], before[..., predicted]
    new_true = _ratio(right[..., true] + moved, union[..., true])
    new_predicted = _ratio(right[..., predicted], union[..., predicted] - moved)
    change = np.nan_to_num(new_true) + np.nan_to_num(new_predicted) - np.nan_to_num(old_true) - np.nan_to_num(old_predicted)
    # A class that was only ever predicted here is no longer there once it is put right.
    left = defined - ((union[..., predicted] > 0) & (union[..., predicted] == moved))
    return _ratio(total + change, left) - _ratio(total, defined)


def kind_gains(right: np.ndarray, union: np.ndarray, gained: np.ndarray, lost: np.ndarray) -> np.ndarray:
    """The gain in mIoU of F fixes, float64 (..., F), from right and union (..., K), gained and lost (..., F, K)."""
    before = _ratio(np.nansum(_ratio(right, union), axis=-1), (union > 0).sum(axis=-1))
    after = _ratio(right[..., None, :] + gained, union[..., None, :] - lost)
    left = (union[..., None, :] > lost).sum(axis=-1)
    return _ratio(np.nansum(after, axis=-1), left) - before[..., None]


def _right_and_union(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    return right, confusion.sum(axis=-1) + confusion.sum(axis=-2) - right


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _intervals(
    counts: np.ndarray, gains: Callable[[np.ndarray], np.ndarray], number: int, *, units: np.ndarray, seed: int
) -> np.ndarray:
    result = np.full((number, 2), np.nan)
    if not number or int(units.max()) == 0:
        return result
    drawn = bootstrap(counts[None], units, metrics={"": gains}, resamples=RESAMPLES, seed=seed)[""][0]
    rate = widened(ALPHA, int(units.max()) + 1)
    for row, draws in zip(result, drawn.T, strict=True):
        defined = draws[~np.isnan(draws)]
        if defined.size:
            row[:] = percentile(defined, alpha=rate)
    return result
