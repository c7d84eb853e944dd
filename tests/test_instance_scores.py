"""Objects of a network that labels pixels: components, their run lengths and scores, and what touching objects cost."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from segpipe.instance_scores import InstanceScores, components, detections, has_things, run_lengths, true_segments
from segpipe.shards import ClassInfo
from tests.object_masks import instance, rectangle

CLASSES = [ClassInfo(name=n, colour=(0, 0, 0), thing=n != "ground") for n in ("ground", "disc", "star")]


@given(labels=hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 2)))
def test_components_and_run_lengths(labels: np.ndarray) -> None:
    """Each component is one class, no two of a class touch, and its run lengths are those of pycocotools."""
    numbers, categories = components(labels, things=np.array([False, True, True]))
    np.testing.assert_array_equal(numbers > 0, labels > 0)
    np.testing.assert_array_equal(np.concatenate([[0], categories])[numbers], labels)
    padded, same = np.pad(numbers, 1), np.pad(labels, 1)
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        moved, theirs = (np.roll(a, (dy, dx), (0, 1)) for a in (padded, same))
        np.testing.assert_array_equal((padded == moved)[(same > 0) & (same == theirs)], True)
    chosen = np.arange(1, len(categories) + 1)
    for number, rle in zip(chosen, run_lengths(numbers, chosen), strict=True):
        assert rle == instance(numbers == number, 0)["rle"]


def scene() -> tuple[np.ndarray, list[dict[str, Any]]]:
    """40 x 60: two discs that touch, one alone, a star."""
    masks = [
        (rectangle((40, 60), (5, 15), (5, 15)), 1),
        (rectangle((40, 60), (5, 15), (15, 25)), 1),
        (rectangle((40, 60), (22, 32), (5, 15)), 1),
        (rectangle((40, 60), (5, 15), (40, 50)), 2),
    ]
    target = np.zeros((40, 60), np.uint8)
    for mask, category in masks:
        target[mask] = category
    return target, [instance(mask, category) for mask, category in masks]


def scores(
    rows: list[dict[str, Any]], target: np.ndarray, labels: np.ndarray, confidence: np.ndarray | None = None
) -> dict[str, Any]:
    found = InstanceScores(CLASSES, ignore_index=255)
    found.add(rows, target, labels, np.full(labels.shape, 255, np.uint8) if confidence is None else confidence)
    document = found.document()
    assert document is not None
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    return document


def test_perfect_labels_lose_only_what_touches() -> None:
    """Two touching discs come out as one, which is neither of them: of three discs one is found and one is invented."""
    target, rows = scene()
    document = scores(rows, target, target)
    assert document["pq"]["by_class"]["star"] == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "tp": 1, "fp": 0, "fn": 0, "thing": True}
    discs = document["pq"]["by_class"]["disc"]
    assert (discs["tp"], discs["fp"], discs["fn"]) == (1, 1, 2)
    assert document["ap"]["by_class"]["star"]["ap"] == 1.0
    assert 0.1 < document["ap"]["by_class"]["disc"]["ap"] < 0.5
    assert document["ap"]["objects"] == 4
    worse = scores(rows, target, np.where(target == 2, 0, target).astype(np.uint8))
    for found in (document, worse):  # the ceiling is the true labels' score, whatever was predicted
        reached = [document["ap"]["ap"], document["ap"]["ap50"], document["pq"]["pq"], document["pq"]["things"]["pq"]]
        assert list(found["ceiling"].values()) == reached
    assert worse["pq"]["pq"] < worse["ceiling"]["pq"] and worse["ap"]["ap"] < worse["ceiling"]["ap"]
    apart = [row for i, row in enumerate(rows) if i != 1]
    target[5:15, 15:25] = 0
    document = scores(apart, target, target)
    assert document["ap"]["ap"] == document["ap"]["ar100"] == document["pq"]["pq"] == 1.0


def test_surer_objects_come_first() -> None:
    """A wrong star that is surer than the right one halves the precision; one that is less sure costs nothing."""
    target, rows = scene()
    labels, sure = target.copy(), np.full(target.shape, 200, np.uint8)
    labels[30:38, 40:50] = 2
    for value, ap in ((250, 0.5), (100, 1.0)):
        sure[30:38, 40:50] = value
        document = scores(rows, target, labels, sure)
        assert document["ap"]["by_class"]["star"]["ap"] == pytest.approx(ap, abs=0.01)


def test_ignored_pixels_belong_to_nobody() -> None:
    target, rows = scene()
    target[20:40, 30:] = 255
    labels = target.copy()
    labels[labels == 255] = 2  # a second star, all of it on ignored pixels
    document = scores(rows, target, labels)
    assert document["ap"]["by_class"]["star"]["ap"] == document["pq"]["by_class"]["star"]["pq"] == 1.0
    labels[15:20, 44:46] = 2  # a bridge that joins it to the first: right on 100 of the 110 pixels that count
    document = scores(rows, target, labels)
    assert document["pq"]["by_class"]["star"] == {"pq": 1 / 1.1, "sq": 1 / 1.1, "rq": 1.0, "tp": 1, "fp": 0, "fn": 0, "thing": True}
    assert document["ap"]["by_class"]["star"]["ap"] == pytest.approx(0.9)  # IoU .909: right at nine of ten thresholds
    labels[5:15, 40:50] = 0  # without the star itself the bridge is wrong where it counts, but most of it does not count
    document = scores(rows, target, labels)
    assert document["pq"]["by_class"]["star"]["fp"] == 0 and document["pq"]["by_class"]["star"]["fn"] == 1
    assert document["ap"]["by_class"]["star"]["ap"] == 0
    numbers, categories = components(labels, things=np.array([False, True, True]))
    kept = detections(numbers, categories, np.full(labels.shape, 51, np.uint8), target=target, ignore_index=255)
    assert categories.tolist() == [1, 1, 2]
    assert [(d.category, d.score) for d in kept] == [(1, 0.2), (1, 0.2)]


def test_of_a_class_only_the_surest_components_are_kept() -> None:
    """180 specks of one pixel, the later the surer, and one star."""
    labels, sure = np.zeros((40, 60), np.uint8), np.arange(2400).reshape(40, 60)
    labels[::4, ::4][:10, :15] = 1
    labels[::4, 2::4][:3, :10] = 1
    labels[39, 59] = 2
    sure = (sure * 255 // 2400).astype(np.uint8)
    numbers, categories = components(labels, things=np.array([False, True, True]))
    kept = detections(numbers, categories, sure, target=labels, ignore_index=255)
    assert np.bincount(categories).tolist() == [0, 180, 1]
    assert [d.category for d in kept] == [1] * 100 + [2]
    assert sorted(round(255 * d.score) for d in kept[:-1]) == np.sort(sure[labels == 1])[-100:].tolist()


def test_true_segments_follow_the_rows_and_the_mask() -> None:
    """A small disc on a large one, a pixel that the mask gives to the ground, and a star in no instance: a crowd."""
    target = np.ones((6, 8), np.uint8)
    target[0, 0], target[5, 7], target[5, 6] = 0, 2, 255
    rows = [instance(rectangle((6, 8), (1, 3), (1, 3)), 1), instance(rectangle((6, 8), (0, 6), (0, 8)), 1)]
    found = true_segments(rows, target, things=np.array([False, True, True]), ignore_index=255)
    assert found.categories.tolist() == [1, 1, 0, 2]
    assert found.crowds.tolist() == [False, False, False, True]
    expected = np.ones((6, 8), int)
    expected[1:3, 1:3], expected[0, 0], expected[5, 7], expected[5, 6] = 2, 3, 4, 0
    np.testing.assert_array_equal(found.numbers, expected)


def test_without_countable_objects_there_is_nothing_to_say() -> None:
    assert has_things(CLASSES) and not has_things(CLASSES[:1])
    target, rows = scene()
    found = InstanceScores(CLASSES, ignore_index=255)
    found.add([], target, target, np.full(target.shape, 255, np.uint8))
    assert found.document() is None
    with pytest.raises(ValueError, match="must be equal"):
        found.add(rows, target, target[1:], np.full(target.shape, 255, np.uint8))
