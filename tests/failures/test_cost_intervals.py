"""Gains from a few sums per class, against scoring the repaired confusion matrix; and the intervals over them."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.failures.cost_intervals import kind_gains, kind_intervals, pair_gains, pair_intervals
from segpipe.failures.tables import cost
from segpipe.intervals import percentile, widened
from segpipe.metrics import mean_iou
from segpipe.resampling import bootstrap

K = 4
PAIRS = np.array(list(permutations(range(K), 2)))


def confusion(seed: int, zeros: int) -> np.ndarray:
    """int64 (K, K) in which the last `zeros` classes never occur, and the one before them is only ever predicted."""
    counts = np.random.default_rng(seed).integers(0, 60, (K, K))
    counts[K - zeros - 1 :], counts[:, K - zeros :] = 0, 0
    return counts


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 2))
def test_gains_are_those_of_the_repaired_confusion_matrix(seed: int, zeros: int) -> None:
    counts = confusion(seed, zeros)
    found = pair_gains(counts[None], PAIRS)[0]
    rights = np.zeros((len(PAIRS) + 1, K, K), np.int64)
    for n, (true, predicted) in enumerate(PAIRS):
        rights[n, true, predicted] = counts[true, predicted]
    rights[-1] = np.random.default_rng(seed).integers(0, counts + 1)
    rights[-1][np.diag_indices(K)] = 0
    expected = [cost(counts, right, mean_iou=mean_iou.compute) for right in rights]
    np.testing.assert_allclose(found, expected[:-1], atol=1e-12)
    right, union = np.diagonal(counts), counts.sum(axis=0) + counts.sum(axis=1) - np.diagonal(counts)
    np.testing.assert_allclose(kind_gains(right, union, rights.sum(axis=2), rights.sum(axis=1)), expected, atol=1e-12)


def test_an_interval_is_that_of_the_repaired_counts_over_the_same_draws() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 40, (12, K, K))
    repaired = counts.copy()
    repaired[:, 1, 1] += repaired[:, 1, 2]
    repaired[:, 1, 2] = 0
    units = np.repeat(np.arange(6), 2)
    drawn = bootstrap(np.stack([counts, repaired]), units, metrics={"miou": mean_iou.compute}, resamples=1000, seed=3)["miou"]
    expected = percentile(drawn[1] - drawn[0], alpha=widened(0.05, 6))
    pairs = pair_intervals(counts, np.array([[0, 1], [1, 2]]), units=units, seed=3)
    np.testing.assert_allclose(pairs[1], expected, atol=1e-12)
    gained, lost = np.zeros((2, 12, 1, K), np.int64)
    gained[:, 0, 1] = lost[:, 0, 2] = counts[:, 1, 2]
    np.testing.assert_allclose(kind_intervals(counts, gained, lost, units=units, seed=3), [expected], atol=1e-12)
    right = np.zeros((K, K), np.int64)
    right[1, 2] = counts[:, 1, 2].sum()
    assert expected[0] < cost(counts.sum(axis=0), right, mean_iou=mean_iou.compute) < expected[1]


def test_alike_images_have_an_interval_without_width_and_one_unit_has_none() -> None:
    one = np.array([[50, 10], [5, 35]])
    low, high = pair_intervals(np.stack([one] * 5), np.array([[0, 1]]), units=np.arange(5), seed=0)[0]
    right = np.array([[0, 10], [0, 0]])
    assert low == high == pytest.approx(cost(one, right, mean_iou=mean_iou.compute))
    assert np.isnan(pair_intervals(one[None], np.array([[0, 1]]), units=np.zeros(1, int), seed=0)).all()
    assert pair_intervals(np.stack([one] * 5), np.zeros((0, 2), int), units=np.arange(5), seed=0).shape == (0, 2)
