"""Bootstrap intervals: against scipy's, against Student's, and where there is nothing to resample."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from segpipe.intervals import bca, over_seeds, percentile, spread, widened


def without_each(values: np.ndarray) -> np.ndarray:
    """The mean of `values` (n,) without each of them."""
    return (values.sum() - values) / (len(values) - 1)


@pytest.mark.parametrize("alpha", [0.05, 0.3])
@pytest.mark.parametrize("n", [4, 25, 200])
def test_both_intervals_are_those_of_scipy(n: int, alpha: float) -> None:
    rng = np.random.default_rng(n)
    for values in (rng.lognormal(size=n), rng.integers(0, 3, n).astype(float)):
        settings: dict[str, Any] = {"confidence_level": 1 - alpha, "n_resamples": 999, "vectorized": True}
        theirs = stats.bootstrap((values,), np.mean, method="BCa", rng=np.random.default_rng(1), **settings)
        draws = theirs.bootstrap_distribution
        found = bca(draws, values.mean(), without_each(values), alpha=alpha)
        assert found == pytest.approx(tuple(theirs.confidence_interval), rel=1e-10)
        simple = stats.bootstrap((values,), np.mean, method="percentile", rng=np.random.default_rng(1), **settings)
        assert percentile(draws, alpha=alpha) == pytest.approx(tuple(simple.confidence_interval), rel=1e-12)


def test_bca_moves_to_the_side_of_the_skew() -> None:
    values = np.random.default_rng(0).lognormal(sigma=1.2, size=30)
    draws = values[np.random.default_rng(1).integers(0, 30, (4000, 30))].mean(axis=1)
    plain, corrected = percentile(draws, alpha=0.05), bca(draws, values.mean(), without_each(values), alpha=0.05)
    assert corrected[0] > plain[0] and corrected[1] > plain[1]
    mirrored = bca(-draws, -values.mean(), -without_each(values), alpha=0.05)
    assert mirrored == pytest.approx((-corrected[1], -corrected[0]), rel=1e-9)


def test_widened_intervals_of_a_mean_are_students() -> None:
    for n in (6, 15, 60):
        rng = np.random.default_rng(n)
        values = stats.norm.ppf((np.arange(n) + 0.5) / n)
        draws = values[rng.integers(0, n, (40_000, n))].mean(axis=1)
        low, high = percentile(draws, alpha=widened(0.05, n))
        half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n)
        assert (high - low) / 2 == pytest.approx(half, rel=0.04)
    assert widened(0.05, 1) == 0.05 and 0 < widened(0.05, 2) < widened(0.05, 40) < widened(0.05, 10**6) < 0.05
    assert widened(0.05, 10**6) == pytest.approx(0.05, rel=1e-4)


def test_nothing_to_resample() -> None:
    """Every degenerate case has an answer, without a warning."""
    constant = np.full(50, 0.5)
    assert bca(constant, 0.5, np.full(5, 0.5), alpha=0.05) == (0.5, 0.5)
    assert bca(constant, 0.5, np.empty(0), alpha=0.05) == (0.5, 0.5)
    draws = np.linspace(0, 1, 101)
    assert bca(draws, 2.0, np.full(5, 2.0), alpha=0.05)[1] == pytest.approx(1.0), "all draws lie below the value"
    assert bca(draws, -1.0, np.full(5, -1.0), alpha=0.05)[0] == pytest.approx(0.0)
    # One unit makes all the difference: the acceleration is as large as it can be, and the ends stay draws.
    low, high = bca(draws, 0.5, np.array([0.0] + [1.0] * 200), alpha=1e-9)
    assert 0 <= low < 0.5 < high <= 1
    assert bca(draws, 0.5, np.array([np.nan, 0.4, 0.5, 0.6]), alpha=0.1) == bca(draws, 0.5, np.array([0.4, 0.5, 0.6]), alpha=0.1)


def test_a_spread_leaves_out_what_is_undefined() -> None:
    draws, left = np.array([0.1, 0.2, np.nan, 0.3, 0.4]), np.array([0.2, 0.3])
    found = spread(draws, 0.25, left, alpha=0.1)
    known = draws[~np.isnan(draws)]
    assert found.percentile == percentile(known, alpha=widened(0.1, 2)) and found.sd == pytest.approx(known.std(ddof=1))
    assert found.bca == bca(known, 0.25, left, alpha=widened(0.1, 2))
    assert [spread(draws, 0.25, left, alpha=0.1, method=name).low for name in ("percentile", "bca")] == [
        found.percentile[0],
        found.bca[0],
    ]
    for nothing in (spread(draws, math.nan, left, alpha=0.1), spread(draws[2:3], 0.2, left, alpha=0.1)):
        assert all(math.isnan(v) for v in (nothing.low, nothing.high, nothing.sd, *nothing.bca, *nothing.percentile))


def test_interval_of_the_mean_over_seeds() -> None:
    scores = np.array([0.61, 0.64, 0.62])
    theirs = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    assert over_seeds(scores, alpha=0.05) == pytest.approx((theirs.low, theirs.high))
