"""The statistics against numbers that scipy and an independent computation gave (tests/golden/statistics.json)."""

import json
from itertools import product

import numpy as np
import pytest

from segpipe.intervals import percentile, widened
from segpipe.metrics import mean_iou
from segpipe.resampling import bootstrap, effect_size, paired_test, wilcoxon_p
from tests.imports import ROOT

FACTS = json.loads((ROOT / "tests/golden/statistics.json").read_text())
EXPECTED = FACTS["expected"]
A, B = (np.array(FACTS["paired"][name]) for name in "ab")


def as_counts(scores: np.ndarray) -> np.ndarray:
    """Scores with two decimals as counts (N, 1, 1) whose mean is the score: hundredths that add up."""
    return np.rint(100 * scores).astype(np.int64)[:, None, None]


def mean_score(counts: np.ndarray) -> np.ndarray:
    return counts[..., 0, 0] / (100 * len(A))


def test_swapping_labels_of_additive_scores_is_the_exact_sign_flip_test() -> None:
    result = paired_test(as_counts(A), as_counts(B), [""] * 10, metric=mean_score, resamples=2000, seed=123)
    assert result.exact
    assert result.difference == pytest.approx(EXPECTED["mean_diff"], abs=1e-12)
    assert result.p == EXPECTED["paired_signflip_exact_two_sided_p"] == EXPECTED["scipy_permutation_test_p"]
    drawn = (A - B)[np.random.default_rng(123).integers(0, 10, (2000, 10))].mean(axis=1)
    assert result.spread.percentile == pytest.approx(percentile(drawn, alpha=widened(0.05, 10)), abs=1e-12)
    assert result.spread.percentile[0] < EXPECTED["bootstrap_percentile_95"][0]


def test_the_bootstrap_draws_as_stated() -> None:
    drawn = bootstrap(as_counts(A - B)[None], np.arange(10), metrics={"mean": mean_score}, resamples=2000, seed=123)["mean"]
    assert drawn.shape == (1, 2000)
    assert percentile(drawn[0], alpha=0.05) == pytest.approx(EXPECTED["bootstrap_percentile_95"], abs=1e-12)


def test_wilcoxon_and_effect_size() -> None:
    assert wilcoxon_p(A - B, zeros="wilcox") == pytest.approx(EXPECTED["wilcoxon_zero_wilcox_approx"]["p"], abs=1e-12)
    assert wilcoxon_p(A - B) == pytest.approx(EXPECTED["wilcoxon_pratt_approx"]["p"], abs=1e-12)
    # The golden numbers are of differences as floats have them, in which 0.92 - 0.88 and 0.9 - 0.86 are no tie.
    rounded = wilcoxon_p(np.round(A - B, 12), zeros="wilcox")
    assert rounded == wilcoxon_p(np.array([2, -1, 4, 5, -1, 3, 9, 3, 0, 4]), zeros="wilcox") != wilcoxon_p(A - B, zeros="wilcox")
    assert effect_size(A - B) == pytest.approx(EXPECTED["cohen_dz"], abs=1e-12)


def test_resampled_dataset_scores() -> None:
    counts = np.array(FACTS["counts"], np.int64)
    for case, expected in FACTS["resampled_miou"].items():
        assert mean_iou.compute(counts[json.loads(case.replace("(", "[").replace(")", "]"))].sum(axis=0)) == pytest.approx(expected)
    drawn = bootstrap(counts[None], np.arange(2), metrics={"miou": mean_iou.compute}, resamples=400, seed=0)["miou"][0]
    expected = {mean_iou.compute(counts[list(pair)].sum(axis=0)).round(12) for pair in product(range(2), repeat=2)}
    assert set(drawn.round(12)) == expected
    assert (drawn.round(12) == round(FACTS["resampled_miou"]["(0, 1)"], 12)).mean() == pytest.approx(0.5, abs=0.1)
