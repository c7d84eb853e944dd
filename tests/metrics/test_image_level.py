"""Scores image by image, of the worst images, and without the background."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segpipe import image_level
from segpipe.metrics import iou, mean_iou, mean_pixel_accuracy, recall
from tests.imports import ROOT

FACTS: dict[str, Any] = json.loads((ROOT / "tests/golden/metrics.json").read_text())["multiclass"]
COUNTS = np.array(FACTS["counts"], np.int64)
IDS = [f"image-{i}" for i in range(100)]
STACKS = arrays(np.int64, st.tuples(st.integers(1, 12), st.just(3), st.just(3)), elements=st.integers(0, 3))


def graded(right: list[int]) -> np.ndarray:
    """Two-class images of 200 pixels with so many right in each class."""
    return np.array([[[r, 100 - r], [100 - r, r]] for r in right], np.int64)


def test_reference_numbers() -> None:
    level, total = FACTS["dataset_level"], COUNTS.sum(axis=0)
    scores = image_level.scores(COUNTS, class_names=["background", "b", "c", "d"], ids=IDS[:2])
    assert scores["image_miou"] == pytest.approx(FACTS["image_level"]["mIoU_I"], abs=1e-15)
    # Every class is on both images or on none, so both orders of averaging agree there.
    assert scores["image_class_miou"] == pytest.approx(FACTS["image_level"]["mIoU_I"], abs=1e-15)
    for name, golden in (("miou_nobg", "mIoU_nobg"), ("mdice_nobg", "mDice_nobg")):
        assert scores[name] == pytest.approx(level[golden], abs=1e-15)
    assert scores["n_classes_absent"] == 1 and scores["background"] == "background"
    np.testing.assert_allclose(recall.compute(total), np.array(level["recall"], np.float64), rtol=1e-15)
    np.testing.assert_allclose(mean_pixel_accuracy.compute(total), np.nanmean(recall.compute(total)), rtol=1e-15)


def test_the_two_orders_of_averaging_differ_where_classes_are_rare() -> None:
    # Class 0 is perfect on both images; class 1 is on the first one only, where nothing of it is found.
    counts = np.array([[[4, 0], [4, 0]], [[8, 0], [0, 0]]], np.int64)
    assert image_level.image_miou(counts) == (0.25 + 1) / 2
    assert image_level.image_class_miou(counts) == (0.75 + 0) / 2


def test_worst_images() -> None:
    right = [90, 20, 80, 95, 60, 70, 85, 99, 88, 77, 66, 55, 10, 91, 92, 93, 94, 96, 97, 98]
    mean, indices = image_level.worst_images(graded(right))
    assert indices.tolist() == [12, 1]
    assert mean == pytest.approx(mean_iou.compute(graded([10, 20])).mean())
    assert image_level.worst_images(graded(right), share=0.5)[1].tolist() == [12, 1, 11, 4, 10, 5, 9, 2, 6, 8]
    # Rounded up, and an image without pixels is not among them.
    assert len(image_level.worst_images(graded([*right, 1]))[1]) == 3
    assert image_level.worst_images(np.concatenate([np.zeros((1, 2, 2), np.int64), graded([50, 40])]))[1].tolist() == [2]
    assert len(image_level.worst_images(graded([50] * 30))[1]) == 3


@given(STACKS)
def test_means_stay_in_order(counts: np.ndarray) -> None:
    worst, indices = image_level.worst_images(counts)
    everyone, _ = image_level.worst_images(counts, share=1.0)
    overall = image_level.image_miou(counts)
    if len(indices):
        assert worst <= overall + 1e-12 and everyone == pytest.approx(overall)
    else:
        assert np.isnan(worst) and np.isnan(overall) and np.isnan(image_level.image_class_miou(counts))


@given(STACKS, st.permutations(range(3)))
def test_order_of_classes_does_not_matter(counts: np.ndarray, order: list[int]) -> None:
    permuted = counts[:, order][:, :, order]
    for function in (image_level.image_miou, image_level.image_class_miou):
        np.testing.assert_allclose(function(permuted), function(counts), rtol=1e-12)


@given(STACKS)
def test_an_image_without_pixels_and_a_class_nobody_has_change_nothing(counts: np.ndarray) -> None:
    more = np.pad(np.concatenate([counts, np.zeros_like(counts[:1])]), [(0, 0), (0, 1), (0, 1)])
    for function in (image_level.image_miou, image_level.image_class_miou):
        np.testing.assert_allclose(function(more), function(counts), rtol=1e-12)


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["background", "a"], 0), (["_background_", "a"], 0), (["Ground", "a"], 0), (["a", "background"], None), (["road"], None)],
)
def test_what_is_a_background(names: list[str], expected: int | None) -> None:
    assert image_level.background_of(names) == expected


def test_without_a_background_nothing_is_left_out() -> None:
    scores = image_level.scores(COUNTS, class_names=["road", "b", "c", "d"], ids=IDS[:2])
    assert scores["background"] is None
    assert scores["miou_nobg"] == float(mean_iou.compute(COUNTS.sum(axis=0)))
    assert scores["mpa_nobg"] == float(mean_pixel_accuracy.compute(COUNTS.sum(axis=0)))


def test_nothing_is_null_in_json() -> None:
    scores = image_level.scores(np.zeros((2, 2, 2), np.int64), class_names=["a", "b"], ids=IDS[:2])
    assert json.loads(json.dumps(scores, allow_nan=False))["miou_nobg"] is None
    assert scores["worst10_images"] == [] and scores["n_classes_absent"] == 2
    assert scores["image_miou"] is scores["image_class_miou"] is scores["worst10_miou"] is None


def test_shares_out_of_range_are_refused() -> None:
    for share in (0, -0.1, 1.1):
        with pytest.raises(ValueError, match="share is"):
            image_level.worst_images(COUNTS, share=share)
    assert np.isnan(iou.compute(COUNTS.sum(axis=0))[3])
