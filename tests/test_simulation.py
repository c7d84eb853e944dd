"""The simulation of docs/simulations.md in small: false winners, and how often intervals hold the truth.

Seeds are fixed, so these cannot flake; the bounds are those within which 999 of 1,000 other seeds would lie if all is right.
"""

import numpy as np
import pytest
from scipy import stats

from benchmarks.simulate_comparison import EXCHANGED, Setting, coverage, draw, groups_of, settings, truth, winners
from segpipe.intervals import HEADLINE_METHOD
from segpipe.metrics import iou, mean_iou

DRAWS = 120
HEADLINE = {"percentile": "percentile, widened", "bca": "BCa, widened"}[HEADLINE_METHOD]


def found(name: str, words: str) -> Setting:
    return next(s for s in settings() if (s.name, s.words) == (name, words))


def test_the_settings_are_what_they_say() -> None:
    names = {(s.name, s.words) for s in settings()}
    assert len(names) == len(settings()) == 16
    both = truth(tuple(found("two unlike, equal mIoU", "40 images").models), images=40_000)
    a, b = iou.compute(both)
    assert abs(a - b)[2:].min() > 0.02 and (np.sign((a - b)[2:]) == np.sign(EXCHANGED[2:])).all(), "they are unlike"
    assert mean_iou.compute(both[0]) == pytest.approx(mean_iou.compute(both[1]), abs=0.001)
    better, worse = mean_iou.compute(truth(tuple(found("a difference", "40 images").models), images=40_000))
    assert 0.01 < better - worse < 0.03
    grouped = found("a difference", "40 groups of 2 to 8 images")
    assert len(groups_of(grouped)) == 200 and groups_of(grouped).max() == 39


def test_a_test_set_has_rare_classes_and_images_that_are_hard_for_all() -> None:
    counts = draw(np.random.default_rng(0), ((0.0,) * 6, (-0.12,) * 6), np.arange(3000))
    np.testing.assert_array_equal(counts[0].sum(axis=2), counts[1].sum(axis=2))
    present = (counts[0].sum(axis=2) > 0).mean(axis=0)
    assert present[:2].tolist() == [1, 1] and present[2:] == pytest.approx([0.7, 0.7, 0.15, 0.15], abs=0.03)
    scores = mean_iou.compute(counts)
    assert np.corrcoef(scores)[0, 1] > 0.5


@pytest.mark.parametrize("name", ["two alike", "two unlike, equal mIoU"])
def test_equally_good_models_are_seldom_called_different(name: str) -> None:
    setting = found(name, "40 images")
    most = stats.binom.ppf(0.999, DRAWS, 0.06)
    assert winners(setting, first=0, draws=DRAWS, resamples=200) <= most


def test_a_difference_is_found() -> None:
    """The test that seldom errs also sees something: with 300 images, 2 points of mIoU nearly always."""
    assert winners(found("a difference", "300 images"), first=0, draws=10, resamples=200) >= 9


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    setting = found("a difference", "40 images")
    hits = coverage(setting, truth(setting.models, images=100_000), first=0, draws=DRAWS, resamples=400)
    assert stats.binom.ppf(0.0005, DRAWS, 0.93) <= hits[f"difference, {HEADLINE}"]
    assert hits["difference, percentile, widened"] >= hits["difference, percentile"]
    assert hits["difference, BCa, widened"] >= hits["difference, BCa"]
