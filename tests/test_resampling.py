"""Draws and tests against brute force: bootstrap, jackknife, label swaps, Holm, and the small statistics."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from segpipe import resampling
from segpipe.intervals import percentile
from segpipe.metrics import iou, mean_dice, mean_iou, mean_pixel_accuracy, pixel_accuracy
from segpipe.resampling import (
    bootstrap,
    effect_size,
    holm,
    jackknife,
    mean_per_unit,
    paired_test,
    pareto_front,
    swap_test,
    units_of,
    welch_p,
    wilcoxon_p,
)

METRICS = {"miou": mean_iou.compute, "mpa": mean_pixel_accuracy.compute, "pa": pixel_accuracy.compute, "dice": mean_dice.compute}


def images(rng: np.random.Generator, n: int, *, accuracy: float = 0.8, k: int = 3, spread: float = 0.1) -> np.ndarray:
    """Counts int64 (n, k, k) of images whose classes differ in size and whose accuracy varies from image to image."""
    counts = np.zeros((n, k, k), np.int64)
    for image in counts:
        right = np.clip(accuracy + rng.normal(0, spread), 0.05, 0.99)
        for truth in range(k):
            p = np.full(k, (1 - right) / (k - 1))
            p[truth] = right
            image[truth] = rng.multinomial(rng.integers(20, 400), p)
    return counts


def test_units() -> None:
    assert units_of(["a", "b", "c"])[1] == "image"
    assert units_of(["", "", ""])[1] == "image"
    units, kind = units_of([f"g{i // 3}" for i in range(36)])
    assert kind == "group" and len(set(units)) == 12 and len(set(units[:3])) == 1
    units, kind = units_of(["a"] * 60 + ["b"] * 40)
    assert kind == "run" and len(set(units)) == 20
    assert (np.diff(units) >= 0).all() and not set(units[:60]) & set(units[60:])
    assert units_of(["a"] * 8)[1] == "image"


def test_bootstrap_is_resampling_of_images() -> None:
    counts = images(np.random.default_rng(1), 7)
    drawn = bootstrap(counts[None], np.arange(7), metrics=METRICS, resamples=50, seed=3)
    chosen = np.random.default_rng(3).integers(0, 7, (50, 7))
    for name, metric in METRICS.items():
        np.testing.assert_array_equal(drawn[name][0], [metric(counts[row].sum(axis=0)) for row in chosen])


def test_groups_are_drawn_together() -> None:
    rng = np.random.default_rng(2)
    # Images of one group are copies of each other: by image there seem to be 80 of them, but there are 16.
    counts = np.repeat(images(rng, 16, spread=0.2), 5, axis=0)
    groups = [f"g{i // 5}" for i in range(80)]
    widths = []
    for units in (np.arange(80), units_of(groups)[0]):
        low, high = percentile(bootstrap(counts[None], units, metrics=METRICS, resamples=1000, seed=0)["miou"][0], alpha=0.05)
        widths.append(high - low)
    assert widths[1] / widths[0] == pytest.approx(5**0.5, rel=0.25)


def test_exact_test_is_every_swap_also_with_unequal_replicates() -> None:
    rng = np.random.default_rng(5)
    a = np.stack([images(rng, 6, accuracy=0.8) for _ in range(2)])
    b = np.stack([images(rng, 6, accuracy=0.72) for _ in range(3)])
    result = paired_test(a, b, [""] * 6, metric=mean_iou.compute, resamples=100, seed=0)
    differences = []
    for swap in product([False, True], repeat=6):
        mask = np.array(swap)[:, None, None]
        pairs = [(np.where(mask, y, x).sum(axis=0), np.where(mask, x, y).sum(axis=0)) for x in a for y in b]
        differences.append(np.mean([mean_iou.compute(x) - mean_iou.compute(y) for x, y in pairs]))
    assert result.exact
    assert result.difference == pytest.approx(differences[0], abs=1e-12)
    assert result.p == np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)
    back = paired_test(b, a, [""] * 6, metric=mean_iou.compute, resamples=100, seed=0)
    assert (back.difference, back.p) == (-result.difference, result.p)
    assert [back.ci_low, back.ci_high] == pytest.approx([-result.ci_high, -result.ci_low])


def test_random_swaps_agree_with_all_swaps(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(6)
    a, b = images(rng, 14, accuracy=0.80), images(rng, 14, accuracy=0.77)
    settings: dict[str, Any] = {"metric": mean_iou.compute, "resamples": 4000, "seed": 1}
    exact = paired_test(a, b, [""] * 14, **settings)
    monkeypatch.setattr(resampling, "EXACT_UNITS", 5)
    drawn = paired_test(a, b, [""] * 14, **settings)
    assert exact.exact and not drawn.exact and 0.02 < exact.p < 0.98
    assert drawn.p == pytest.approx(exact.p, abs=0.03)
    assert (drawn.ci_low, drawn.ci_high) == (exact.ci_low, exact.ci_high)
    monkeypatch.setattr(resampling, "BLOCK_BYTES", 5000)
    assert paired_test(a, b, [""] * 14, **settings) == drawn, "the result depends on the size of the memory blocks"


def test_p_is_never_zero_and_one_for_equal_models() -> None:
    rng = np.random.default_rng(7)
    a = images(rng, 30, accuracy=0.95, spread=0.01)
    b = images(rng, 30, accuracy=0.5, spread=0.01)
    settings: dict[str, Any] = {"metric": mean_iou.compute, "resamples": 199, "seed": 0}
    assert paired_test(a, b, [""] * 30, **settings).p == 1 / 200
    same = paired_test(a, a, [""] * 30, **settings)
    assert (same.p, same.difference, same.ci_low, same.ci_high) == (1, 0, 0, 0)


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_small_statistics() -> None:
    assert wilcoxon_p(np.zeros(5)) == 1.0
    assert effect_size(np.array([1.0, 1.0])) is None and effect_size(np.array([0.5])) is None
    assert welch_p([0.5], [0.5, 0.6]) is None
    assert welch_p([0.5, 0.5], [0.6, 0.6]) == 0.0 and welch_p([0.5, 0.5], [0.5, 0.5]) == 1.0
    assert welch_p([0.1, 0.2, 0.3], [0.5, 0.6, 0.7]) == pytest.approx(0.00804988, abs=1e-7)  # t = -4.899, 4 degrees of freedom
    assert mean_per_unit(np.array([1.0, np.nan, 3.0, np.nan]), np.array([0, 0, 1, 2])).tolist() == [1.0, 3.0]
    assert pareto_front([1, 2, 3, None, 2], [0.5, 0.7, 0.6, 0.9, 0.7]) == [True, True, False, False, True]


def test_jackknife_leaves_out_each_unit() -> None:
    rng = np.random.default_rng(3)
    counts = np.stack([images(rng, 9), images(rng, 9)])
    units = np.array([0, 0, 1, 2, 2, 2, 3, 3, 0])
    found = jackknife(counts, units, metrics={"miou": mean_iou.compute, "iou": iou.compute})
    for unit in range(4):
        left = counts[:, units != unit].sum(axis=1)
        np.testing.assert_array_equal(found["miou"][:, unit], mean_iou.compute(left))
        np.testing.assert_array_equal(found["iou"][:, unit], iou.compute(left))
    assert np.isnan(jackknife(counts[:, :1], units[:1], metrics={"miou": mean_iou.compute})["miou"]).all()


def test_scores_of_classes_are_tested_with_the_same_swaps() -> None:
    rng = np.random.default_rng(4)
    a, b = images(rng, 8, accuracy=0.8, k=4)[None], images(rng, 8, accuracy=0.7, k=4)[None]
    for counts in (a, b):
        counts[:, :, 3], counts[:, :, :, 3] = 0, 0
    tests = swap_test(a, b, np.arange(8), metrics={"iou": iou.compute, "miou": mean_iou.compute}, resamples=100, seed=0)
    for k in range(3):
        alone = swap_test(a, b, np.arange(8), metrics={"one": lambda c, k=k: iou.compute(c)[..., k]}, resamples=100, seed=0)["one"]
        assert (tests["iou"].difference[k], tests["iou"].p[k]) == (alone.difference, alone.p)
    assert np.isnan([tests["iou"].difference[3], tests["iou"].p[3]]).all()
    assert tests["miou"].difference == pytest.approx(tests["iou"].difference[:3].mean())
    drawn = swap_test(a, b, np.repeat(np.arange(4), 2), metrics=METRICS, resamples=100, seed=0)["pa"]
    assert drawn.exact and 8 * drawn.p == int(8 * drawn.p)
