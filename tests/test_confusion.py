"""Confusion counts against a plain reference, for both label widths, with ignored pixels and wrong labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe import confusion


def reference(target: np.ndarray, prediction: np.ndarray, num_classes: int, ignore_index: int) -> np.ndarray:
    counts = np.zeros((num_classes, num_classes), np.int64)
    valid = target != ignore_index
    np.add.at(counts, (target[valid].astype(np.int64), prediction[valid].astype(np.int64)), 1)
    return counts


def labels(seed: int, shape: tuple[int, ...], *, num_classes: int, ignore_index: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """A random pair; a fifth of the truth is ignored, and there the prediction is anything."""
    rng = np.random.default_rng(seed)
    target = rng.integers(0, num_classes, shape).astype(dtype)
    prediction = np.where(rng.random(shape) < 0.7, target, rng.integers(0, num_classes, shape)).astype(dtype)
    ignored = rng.random(shape) < 0.2
    target[ignored] = ignore_index
    prediction[ignored] = rng.integers(0, np.iinfo(dtype).max + 1, int(ignored.sum()))
    return target, prediction


@pytest.mark.parametrize(
    ("num_classes", "ignore_index", "dtype"),
    [
        (1, 255, np.uint8),
        (2, 255, np.uint8),
        (19, 255, np.uint8),
        (255, 255, np.uint8),
        (5, 200, np.uint8),
        (300, 65535, np.uint16),
    ],
)
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (301, 299)], ids=str)
def test_counts_equal_the_reference(num_classes: int, ignore_index: int, dtype: type, shape: tuple[int, int]) -> None:
    target, prediction = labels(num_classes, shape, num_classes=num_classes, ignore_index=ignore_index, dtype=dtype)
    counts = confusion.count(target, prediction, num_classes=num_classes, ignore_index=ignore_index)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, reference(target, prediction, num_classes, ignore_index))


@given(
    pair=hnp.arrays(np.uint8, st.tuples(st.just(2), st.integers(0, 12), st.integers(1, 12)), elements=st.integers(0, 3)),
    ignore_index=st.integers(-1, 4),
)
def test_any_small_pair_even_with_an_ignored_class(pair: np.ndarray, ignore_index: int) -> None:
    counts = confusion.count(pair[0], pair[1], num_classes=4, ignore_index=ignore_index)
    np.testing.assert_array_equal(counts, reference(pair[0], pair[1], 4, ignore_index))


def test_mixed_widths_and_views_that_are_not_contiguous() -> None:
    target, prediction = labels(0, (40, 60), num_classes=6, ignore_index=255, dtype=np.uint8)
    expected = reference(target[::2, 5:], prediction[::2, 5:], 6, 255)
    counts = confusion.count(target[::2, 5:], prediction.astype(np.uint16)[::2, 5:], num_classes=6, ignore_index=255)
    np.testing.assert_array_equal(counts, expected)


def test_more_pixels_than_float32_counts_exactly() -> None:
    # One class on more than 2^24 pixels: a float32 counter would stop there.
    target = np.zeros((4100, 4101), np.uint8)
    assert confusion.count(target, target, num_classes=2, ignore_index=255).tolist() == [[4100 * 4101, 0], [0, 0]]


def test_pieces_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "PIECE", 1000)
    monkeypatch.setattr(confusion, "INTERLEAVE_FROM", 300)
    target, prediction = labels(1, (61, 67), num_classes=7, ignore_index=255, dtype=np.uint8)
    counts = confusion.count(target, prediction, num_classes=7, ignore_index=255)
    np.testing.assert_array_equal(counts, reference(target, prediction, 7, 255))


def test_a_batch_is_its_images() -> None:
    target, prediction = labels(2, (3, 20, 30), num_classes=4, ignore_index=255, dtype=np.uint8)
    counts = confusion.count_batch(target, prediction, num_classes=4, ignore_index=255)
    assert counts.shape == (3, 4, 4)
    for index in range(3):
        np.testing.assert_array_equal(counts[index], reference(target[index], prediction[index], 4, 255))


@pytest.mark.parametrize(("name", "value"), [("target", 4), ("prediction", 255), ("prediction", 7)])
@pytest.mark.parametrize("side", [8, 300])
def test_a_label_out_of_range_is_named(name: str, value: int, side: int) -> None:
    pair = {"target": np.zeros((side, side), np.uint8), "prediction": np.zeros((side, side), np.uint8)}
    pair[name][3, 5] = value
    with pytest.raises(ValueError, match=rf"{name}: 1 pixels hold the labels {value}, which are not in 0\.\.3"):
        confusion.count(pair["target"], pair["prediction"], num_classes=4, ignore_index=255)


def test_shapes_and_types_are_checked() -> None:
    labels_8 = np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match=r"shape \(4, 4\).*\(4, 5\)"):
        confusion.count(labels_8, labels_8[:, :4], num_classes=2, ignore_index=255)
    with pytest.raises(ValueError, match="prediction is int64"):
        confusion.count(labels_8, labels_8.astype(np.int64), num_classes=2, ignore_index=255)
    with pytest.raises(ValueError, match="num_classes is 0"):
        confusion.count(labels_8, labels_8, num_classes=0, ignore_index=255)
    with pytest.raises(ValueError, match="targets"):
        confusion.count_batch(labels_8[None], labels_8[None, :2], num_classes=2, ignore_index=255)
