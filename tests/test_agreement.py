"""Where models agree: against counting pixel by pixel, and against each model's own confusion counts."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe import confusion
from segpipe.agreement import AGREE, BOTH_RIGHT, BOTH_WRONG, ONLY_A, ONLY_B, agreement, count_agreement


def drawn(seed: int, shape: tuple[int, int], models: int) -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 2, 255], shape, p=[0.4, 0.3, 0.2, 0.1]).astype(np.uint8)
    return truth, [np.where(rng.random(shape) < 0.6, truth % 3, rng.integers(0, 3, shape)).astype(np.uint8) for _ in range(models)]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 13), width=st.integers(1, 13), models=st.integers(1, 4))
def test_counts_are_those_of_every_pixel(seed: int, height: int, width: int, models: int) -> None:
    truth, predictions = drawn(seed, (height, width), models)
    counts = count_agreement(truth, predictions, ignore_index=255)
    pairs = list(combinations(predictions, 2))
    assert counts.shape == (len(pairs), 5) and counts.dtype == np.int64
    for row, (a, b) in zip(counts, pairs, strict=True):
        expected = [0] * 5
        for t, x, y in zip(truth.flat, a.flat, b.flat, strict=True):
            if t != 255:
                expected[AGREE] += x == y
                expected[BOTH_RIGHT] += x == t and y == t
                expected[ONLY_A] += x == t and y != t
                expected[ONLY_B] += x != t and y == t
                expected[BOTH_WRONG] += x != t and y != t
        assert row.tolist() == expected
        assert row[1:].sum() == (truth != 255).sum() and row[AGREE] >= row[BOTH_RIGHT]
        own = [int(np.trace(confusion.count(truth, one, num_classes=3, ignore_index=255))) for one in (a, b)]
        assert [row[BOTH_RIGHT] + row[ONLY_A], row[BOTH_RIGHT] + row[ONLY_B]] == own


def test_shares_and_overlap() -> None:
    found = agreement(("a", "b"), np.array([70, 60, 20, 10, 10]))
    assert found is not None and (found.pixels, found.agree, found.both_right, found.only_a) == (100, 0.7, 0.6, 0.2)
    assert found.overlap == pytest.approx(10 / 40)
    assert found.overlap_by_chance == pytest.approx(0.2 * 0.3 / (0.2 + 0.3 - 0.2 * 0.3))
    perfect = agreement(("a", "b"), np.array([9, 9, 0, 0, 0]))
    assert perfect is not None and perfect.overlap is None and perfect.both_right == 1
    assert agreement(("a", "b"), np.zeros(5, np.int64)) is None


def test_errors_that_fall_independently_overlap_by_chance() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros((400, 500), np.uint8)
    a, b = ((rng.random(truth.shape) < p).astype(np.uint8) for p in (0.3, 0.2))
    found = agreement(("a", "b"), count_agreement(truth, [a, b], ignore_index=255)[0])
    assert found is not None and found.overlap == pytest.approx(found.overlap_by_chance, abs=0.005)


def test_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a prediction is \(2, 3\), its truth \(2, 2\)"):
        count_agreement(np.zeros((2, 2), np.uint8), [np.zeros((2, 3), np.uint8)], ignore_index=255)
