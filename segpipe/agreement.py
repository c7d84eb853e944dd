"""Where two models agree, pixel by pixel: do they err in the same places, or does each know what the other does not?

One image is in memory at a time, with one label map per model. Who is right is kept as bits, so that all pairs of models cost
little more than reading the predictions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

AGREE, BOTH_RIGHT, ONLY_A, ONLY_B, BOTH_WRONG = range(5)
"""Columns of the counts of a pair."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Two models on the pixels that have a label; all but `pixels` are shares of them, in 0..1.

    `agree`: both predict the same class, right or wrong. `both_right`, `only_a`, `only_b` (one is right) and `both_wrong` add up
    to 1. `overlap` is the Jaccard index of their errors, `overlap_by_chance` what it would be if errors fell on pixels
    independently; None where neither model errs.
    """

    a: str
    b: str
    pixels: int
    agree: float
    both_right: float
    only_a: float
    only_b: float
    both_wrong: float
    overlap: float | None
    overlap_by_chance: float | None


def count_agreement(truth: np.ndarray, predictions: Sequence[np.ndarray], *, ignore_index: int) -> np.ndarray:
    """Pixels of one image, for all pairs of models in the order of `itertools.combinations`: int64 (pairs, 5).

    The columns are AGREE, BOTH_RIGHT, ONLY_A, ONLY_B and BOTH_WRONG. `truth` and every prediction are label maps (H, W);
    pixels whose truth is `ignore_index` are left out.

    Raises:
        ValueError: a prediction has another shape than the truth.
    """
    for labels in predictions:
        if labels.shape != truth.shape:
            raise ValueError(f"a prediction is {labels.shape}, its truth {truth.shape}")
    counted = truth != ignore_index
    pixels = int(np.count_nonzero(counted))
    some_ignored = pixels < truth.size
    right = [_packed((labels == truth) & counted if some_ignored else labels == truth) for labels in predictions]
    sums = [_bits(one) for one in right]
    pairs = list(combinations(range(len(predictions)), 2))
    counts = np.zeros((len(pairs), 5), np.int64)
    for row, (a, b) in zip(counts, pairs, strict=True):
        both = _bits(right[a] & right[b])
        same = predictions[a] == predictions[b]
        row[AGREE] = np.count_nonzero(same & counted if some_ignored else same)
        row[BOTH_RIGHT], row[ONLY_A], row[ONLY_B] = both, sums[a] - both, sums[b] - both
        row[BOTH_WRONG] = pixels - sums[a] - sums[b] + both
    return counts


def agreement(names: tuple[str, str], counts: np.ndarray) -> Agreement | None:
    """The shares of one pair of models from its counts int64 (5,), summed over images; None where no pixel has a label."""
    pixels = int(counts[BOTH_RIGHT:].sum())
    if not pixels:
        return None
    shares = counts / pixels
    wrong_a, wrong_b = shares[ONLY_B] + shares[BOTH_WRONG], shares[ONLY_A] + shares[BOTH_WRONG]
    either = shares[ONLY_A] + shares[ONLY_B] + shares[BOTH_WRONG]
    return Agreement(
        a=names[0],
        b=names[1],
        pixels=pixels,
        agree=float(shares[AGREE]),
        both_right=float(shares[BOTH_RIGHT]),
        only_a=float(shares[ONLY_A]),
        only_b=float(shares[ONLY_B]),
        both_wrong=float(shares[BOTH_WRONG]),
        overlap=float(shares[BOTH_WRONG] / either) if either else None,
        overlap_by_chance=float(wrong_a * wrong_b / (wrong_a + wrong_b - wrong_a * wrong_b)) if either else None,
    )


def _packed(values: np.ndarray) -> np.ndarray:
    """bool (...) as the bits of uint64 (n,), padded with zeros."""
    bits = np.packbits(values)
    return np.pad(bits, (0, -len(bits) % 8)).view(np.uint64)


def _bits(packed: np.ndarray) -> int:
    return int(np.bitwise_count(packed).sum(dtype=np.int64))
