"""Intervals, tests and verdicts: against brute force, under the null, and on replicates."""

import json
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from segpipe import resampling
from segpipe.comparison import Comparison, Scored, compare, document, leaderboard
from segpipe.metrics import iou, mean_dice, mean_iou, mean_pixel_accuracy, pixel_accuracy
from segpipe.resampling import (
    bootstrap,
    effect_size,
    holm,
    interval,
    mean_per_unit,
    paired_test,
    pareto_front,
    units_of,
    welch_p,
    wilcoxon_p,
)
from segpipe.verdicts import p_words, points
from tests.imports import ROOT, closure, imported_modules

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


def scored(name: str, counts: np.ndarray, *, seed: int = 0, recipe: str | None = None, **changes: Any) -> Scored:
    n = len(counts)
    one = Scored(
        name=name,
        architecture="unet",
        loss="dice",
        seed=seed,
        recipe=recipe or name,
        dataset="scenes",
        dataset_digest="d",
        ids=[f"i{i}" for i in range(n)],
        groups=[f"i{i}" for i in range(n)],
        counts=counts,
        cost={"device": "cpu", "wall_seconds": 10.0 + seed, "parameters": 100, "gflops": None},
    )
    return replace(one, **changes)


def compared(*models: Scored, **changes: Any) -> Comparison:
    settings: dict[str, Any] = {"resamples": 500, "alpha": 0.05, "seed": 0} | changes
    return compare(models, metrics=METRICS, per_class=iou.compute, **settings)


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
        low, high = interval(bootstrap(counts[None], units, metrics=METRICS, resamples=1000, seed=0)["miou"][0], alpha=0.05)
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


def test_under_the_null_one_test_in_twenty_is_significant() -> None:
    rng = np.random.default_rng(8)
    hits = []
    for draw in range(200):
        # Two unlike results per image, given to a and b by the toss of a coin.
        first, second = images(rng, 10, accuracy=0.85), images(rng, 10, accuracy=0.7, spread=0.2)
        toss = (rng.random(10) < 0.5)[:, None, None]
        a, b = np.where(toss, first, second), np.where(toss, second, first)
        hits.append(paired_test(a, b, [""] * 10, metric=mean_iou.compute, resamples=100, seed=draw).p <= 0.05)
    assert 0.01 <= np.mean(hits) <= 0.10


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(9)
    population = images(rng, 4000, spread=0.15)
    truth = mean_iou.compute(population.sum(axis=0))
    covered = []
    for draw in range(200):
        sample = population[rng.choice(4000, 40, replace=False)]
        drawn = bootstrap(sample[None], np.arange(40), metrics={"miou": mean_iou.compute}, resamples=300, seed=draw)["miou"]
        low, high = interval(drawn[0], alpha=0.05)
        covered.append(low <= truth <= high)
    assert 0.88 <= np.mean(covered) <= 0.99


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


def test_words() -> None:
    assert [p_words(p) for p in (0.0004, 0.003, 0.04, 0.0999, 0.214, 0.9999, 1.0)] == [
        "p < .001",
        "p = .003",
        "p = .040",
        "p = .10",
        "p = .21",
        "p = 1",
        "p = 1",
    ]
    assert [points(v) for v in (0.7123, -0.0001, -0.021)] == ["71.2", "0.0", "-2.1"]


def test_a_real_difference_and_none() -> None:
    rng = np.random.default_rng(10)
    good = images(rng, 40, accuracy=0.9, spread=0.03)
    twin = good.copy()
    twin[::2], twin[1::2] = good[1::2], good[::2]
    comparison = compared(scored("bad", images(rng, 40, accuracy=0.7, spread=0.03)), scored("good", good), scored("twin", twin))
    assert comparison.models[-1].name == "bad" and comparison.unit == "image" and comparison.units == 40
    verdicts = {frozenset((p.a, p.b)): p for p in comparison.pairs}
    real = verdicts[frozenset(("good", "bad"))]
    assert real.better == "good" and real.a == "good" and real.test.ci_low > 0 and (real.wins, real.losses) == (40, 0)
    assert real.verdict.startswith(f"good is better than bad by {points(real.test.difference)} mIoU points (95 % ")
    assert real.verdict.endswith("after Holm; training noise unknown (one seed each).")
    assert real.p_holm > real.test.p
    none = verdicts[frozenset(("good", "twin"))]
    assert none.better is None and none.p_holm == 1.0 and none.wins == none.losses
    assert none.verdict.startswith("No evidence of a difference between ")


def test_many_pairs_leave_room_for_a_finding() -> None:
    rng = np.random.default_rng(18)
    models = [scored(f"m{i}", images(rng, 25, accuracy=0.4 + 0.05 * i, spread=0.01)) for i in range(10)]
    comparison = compared(*models, resamples=100)
    assert len(comparison.pairs) == 45
    assert all(pair.better for pair in comparison.pairs if pair.test.difference > 0.2)


def test_replicates_are_one_model_with_training_noise() -> None:
    rng = np.random.default_rng(11)
    parts = {
        name: images(rng, 30, accuracy=a) for name, a in (("unet-seed1", 0.84), ("unet", 0.85), ("segnet", 0.6), ("segnet-2", 0.62))
    }
    comparison = compared(
        scored("unet-seed1", parts["unet-seed1"], seed=1, recipe="u"),
        scored("unet", parts["unet"], recipe="u"),
        scored("segnet", parts["segnet"], recipe="s"),
        scored("segnet-2", parts["segnet-2"], recipe="s", seed=2),
    )
    unet, segnet = comparison.models
    assert (unet.name, segnet.name) == ("unet", "segnet") and len(comparison.pairs) == 1
    values = {name: float(mean_iou.compute(counts.sum(axis=0))) for name, counts in parts.items()}
    assert unet.scores["miou"].value == pytest.approx((values["unet"] + values["unet-seed1"]) / 2)
    assert unet.scores["miou"].training_sd == pytest.approx(abs(values["unet"] - values["unet-seed1"]) / 2**0.5)
    assert {m.name: m.scores["miou"].value for m in unet.members} == pytest.approx({k: values[k] for k in ("unet", "unet-seed1")})
    assert unet.cost["wall_seconds"] == 10.5 and "device" not in unet.cost and unet.members[0].cost["device"] == "cpu"
    np.testing.assert_allclose(unet.per_image, (mean_iou.compute(parts["unet"]) + mean_iou.compute(parts["unet-seed1"])) / 2)
    pair = comparison.pairs[0]
    assert pair.test.difference == pytest.approx(unet.scores["miou"].value - segnet.scores["miou"].value)
    assert pair.p_seeds is not None
    assert f"training noise of unet sd {points(unet.scores['miou'].training_sd)} points over 2 seeds" in pair.verdict
    assert 0.001 < pair.p_seeds < 0.05 and f"; over seeds {p_words(pair.p_seeds)}." in pair.verdict


def test_a_difference_that_seeds_may_turn_round_is_said_to_be_one() -> None:
    rng = np.random.default_rng(12)
    comparison = compared(
        scored("a", images(rng, 60, accuracy=0.95, spread=0.01), recipe="a"),
        scored("a1", images(rng, 60, accuracy=0.65, spread=0.01), recipe="a", seed=1),
        scored("b", images(rng, 60, accuracy=0.73, spread=0.01), recipe="b"),
        scored("b1", images(rng, 60, accuracy=0.75, spread=0.01), recipe="b", seed=1),
    )
    pair = comparison.pairs[0]
    assert pair.better == "a" and pair.p_seeds is not None and pair.p_seeds > 0.05
    assert "over seeds the difference is not established" in pair.verdict


def test_the_result_does_not_depend_on_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(13)
    models = [scored(name, images(rng, 20, accuracy=a)) for name, a in (("x", 0.8), ("y", 0.75), ("z", 0.7))]
    assert document(compared(*models)) == document(compared(*models[::-1]))


def test_absent_classes_and_plain_json() -> None:
    rng = np.random.default_rng(14)
    counts = images(rng, 12, k=4)
    counts[:, 3], counts[:, :, 3] = 0, 0
    comparison = compared(scored("a", counts), scored("b", counts[:, [1, 0, 2, 3]][:, :, [1, 0, 2, 3]]))
    plain = json.loads(json.dumps(document(comparison), allow_nan=False))
    assert plain["models"][0]["per_class"][3] is None and plain["models"][0]["per_class"][0] > 0
    assert len(plain["models"][0]["members"][0]["per_image"]) == 12
    assert plain["pairs"][0]["verdict"].startswith("No evidence")


def test_leaderboard_rows() -> None:
    rng = np.random.default_rng(15)
    rows = leaderboard(compared(scored("low", images(rng, 12, accuracy=0.6)), scored("top", images(rng, 12, accuracy=0.9))))
    columns = "experiment dataset architecture loss seed miou miou_ci_low miou_ci_high mpa mpa_ci_low mpa_ci_high pa dice"
    assert list(rows[0]) == [*columns.split(), "parameters", "train_seconds", "images_per_second", "gflops"]
    assert [row["experiment"] for row in rows] == ["top", "low"]
    assert rows[0]["miou_ci_low"] < rows[0]["miou"] < rows[0]["miou_ci_high"]
    assert (rows[0]["train_seconds"], rows[0]["images_per_second"]) == (10.0, None)


def test_one_model_and_one_image() -> None:
    counts = images(np.random.default_rng(16), 1)
    assert compared(scored("a", counts)).pairs == ()
    pair = compared(scored("a", counts), scored("b", counts.transpose(0, 2, 1))).pairs[0]
    assert pair.test.p == 1.0 and pair.effect is None


def test_what_cannot_be_compared_is_refused() -> None:
    counts = images(np.random.default_rng(17), 5)
    with pytest.raises(ValueError, match=r"evaluations/b: not the same test images as evaluations/a.*dvc repro"):
        compared(scored("a", counts), scored("b", counts, ids=list("vwxyz")))
    with pytest.raises(ValueError, match=r"evaluations/b: not the same test images"):
        compared(scored("a", counts), scored("b", counts, dataset_digest="other"))
    with pytest.raises(ValueError, match=r"evaluations/a: no pixel of the test split has a label"):
        compared(scored("a", 0 * counts))


def test_comparing_needs_no_torch() -> None:
    for start in ("segpipe/comparison.py", "segpipe/results.py", "segpipe/pages/comparison.py"):
        files = closure(ROOT / start)
        assert len(files) >= 3
        assert not [file for file in files if any(name.split(".")[0] == "torch" for name in imported_modules(file))]
