"""Intervals, tests and verdicts: against brute force, under the null, and on replicates."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from segpipe.comparison import Comparison, compare, document, leaderboard
from segpipe.metrics import iou, mean_iou
from segpipe.model_scores import Scored
from segpipe.power import More, more_words
from segpipe.wording import p_words, points
from tests.imports import ROOT, closure, imported_modules
from tests.test_resampling import METRICS, images


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
    assert real.verdict.endswith(f"), {p_words(real.p_holm)} after Holm, one seed each: training noise is unknown.")
    assert real.p_holm > real.test.p
    none = verdicts[frozenset(("good", "twin"))]
    assert none.better is None and none.p_holm == 1.0 and none.wins == none.losses
    assert none.verdict.startswith("No evidence of a difference between ")
    enough = "these images would probably have shown a difference of 1 mIoU point"
    assert ("would be needed to see 1 mIoU point" if none.more_images else enough) in none.verdict


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
    sds = [points(model.scores["miou"].training_sd) for model in (unet, segnet)]
    assert f"after Holm, 2 seeds each (training sd {sds[0]} and {sds[1]} points)" in pair.verdict
    low, high = unet.scores["miou"].training_interval
    assert low < unet.scores["miou"].value < high and segnet.per_class[0].training_sd is not None
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
    absent, present = plain["models"][0]["per_class"][3], plain["models"][0]["per_class"][0]
    assert absent["value"] is None and absent["bca"] == [None, None] and 0 < present["low"] < present["value"] < present["high"]
    assert plain["pairs"][0]["classes"][3] is None and plain["pairs"][0]["classes"][2]["p_holm"] == 1.0
    assert len(plain["models"][0]["members"][0]["per_image"]) == 12
    assert plain["pairs"][0]["verdict"].startswith("No evidence")


def test_leaderboard_rows() -> None:
    rng = np.random.default_rng(15)
    rows = leaderboard(compared(scored("low", images(rng, 12, accuracy=0.6)), scored("top", images(rng, 12, accuracy=0.9))))
    columns = "experiment dataset architecture loss seed miou miou_ci_low miou_ci_high mpa mpa_ci_low mpa_ci_high pa dice"
    assert list(rows[0]) == [
        *columns.split(),
        "parameters",
        "train_seconds",
        "images_per_second",
        "gflops",
        "peak_memory_mb",
        "predict_seconds",
    ]
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


def test_both_intervals_and_the_one_that_was_chosen() -> None:
    rng = np.random.default_rng(19)
    models = [scored(name, images(rng, 20, accuracy=a, spread=0.2)) for name, a in (("x", 0.9), ("y", 0.8))]
    for method in ("percentile", "bca"):
        comparison = compared(*models, method=method)
        for score in (comparison.models[0].scores["miou"], comparison.models[1].per_class[1]):
            assert (score.low, score.high) == getattr(score, method) and score.percentile != score.bca
        test = comparison.pairs[0].test
        assert (test.ci_low, test.ci_high) == getattr(test.spread, method) and comparison.method == method


def test_classes_are_corrected_among_themselves() -> None:
    rng = np.random.default_rng(20)
    good = images(rng, 30, k=3, accuracy=0.85, spread=0.05)
    worse = good.copy()
    # Half of what is right of class 1 goes to class 2, which both classes feel; class 0 does not.
    moved = worse[:, 1, 1] // 2
    worse[:, 1, 1] -= moved
    worse[:, 1, 2] += moved
    (pair,) = compared(scored("good", good), scored("worse", worse)).pairs
    zero, one, two = (test for test in pair.classes if test is not None)
    assert zero.difference == 0 and zero.p == 1.0 and (zero.ci_low, zero.ci_high) == (0, 0)
    assert one.p_holm == pytest.approx(3 * one.p) and one.p_holm < 0.05 and one.ci_low > 0 and two.ci_low > 0
    assert pair.test.difference == pytest.approx((zero.difference + one.difference + two.difference) / 3)


def test_equal_predictions_need_no_images() -> None:
    counts = images(np.random.default_rng(21), 20)
    pair = compared(scored("a", counts), scored("b", counts)).pairs[0]
    assert pair.verdict == (
        "No evidence of a difference between a and b: their scores are equal whichever images are drawn; one seed each: training"
        " noise is unknown."
    )
    assert pair.more_units == 0 and pair.better is None


def test_words_for_more_images() -> None:
    words = [
        more_words(More(units=n, unit=unit, images=m)) for n, unit, m in ((137, "image", 137), (1, "image", 1), (12, "group", 96))
    ]
    assert words == [
        "at least 140 more images would be needed to see 1 mIoU point",
        "at least 1 more image would be needed to see 1 mIoU point",
        "at least 12 more groups (96 images) would be needed to see 1 mIoU point",
    ]
    assert more_words(More(units=30, unit="run", images=241)).startswith("at least 30 more runs of images (250 images) would")
    enough = "these images would probably have shown a difference of 1 mIoU point"
    assert more_words(More(units=0, unit="group", images=0)) == enough


def test_fewer_images_need_more() -> None:
    rng = np.random.default_rng(22)
    a, b = images(rng, 400, accuracy=0.80, spread=0.2), images(rng, 400, accuracy=0.80, spread=0.2)
    needed = []
    for n in (40, 100, 400):
        (pair,) = compared(scored("a", a[:n]), scored("b", b[:n])).pairs
        needed.append(n + pair.more_units)
        assert pair.more_images == pair.more_units
    assert max(needed) < 2 * min(needed), "the number needed is a trait of the models, not of the test set at hand"


def test_comparing_needs_no_torch() -> None:
    for start in ("segpipe/comparison.py", "segpipe/results.py", "segpipe/pages/comparison.py"):
        files = closure(ROOT / start)
        assert len(files) >= 3
        assert not [file for file in files if any(name.split(".")[0] == "torch" for name in imported_modules(file))]
