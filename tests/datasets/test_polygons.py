"""Polygons and run lengths in their boxes: every pixel as pycocotools' full decode has it, by its own compiled code."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from segpipe.datasets.blocks import coco_files, polygons


def reference(shapes: Sequence[Sequence[float]], height: int, width: int) -> dict[str, Any]:
    return dict(coco_mask.merge(coco_mask.frPyObjects([list(map(float, s)) for s in shapes], height, width)))


def decode(rle: dict[str, Any]) -> np.ndarray:
    """bool (H, W), one run at a time."""
    height, width = rle["size"]
    whole = np.zeros(height * width, bool)
    at = 0
    for number, run in enumerate(whole_counts(rle["counts"])):
        whole[at : at + run] = number % 2
        at += run
    return whole.reshape(width, height).T


def whole_counts(counts: bytes) -> list[int]:
    """COCO's compressed counts, one character at a time."""
    found: list[int] = []
    value = shift = 0
    for code in (c - 48 for c in counts):
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            value -= (1 << shift) if code & 16 else 0
            found.append(value + found[-2] if len(found) > 2 else value)
            value = shift = 0
    return found


def pasted(box: tuple[int, int, np.ndarray], height: int, width: int) -> np.ndarray:
    top, left, mask = box
    whole = np.zeros((height, width), bool)
    whole[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    assert mask.dtype == bool and whole.sum() == mask.sum(), "the box reaches outside the image"
    if mask.size:
        edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
        assert all(edge.any() for edge in edges), "the box is larger than its pixels"
    else:
        assert (top, left, mask.shape) == (0, 0, (0, 0))
    return whole


def check(shapes: Sequence[Sequence[float]], height: int, width: int) -> None:
    rle = reference(shapes, height, width)
    expected = decode(rle)
    assert polygons.to_rle(shapes, height=height, width=width) == rle
    assert (pasted(polygons.in_box(shapes, height=height, width=width), height, width) == expected).all()
    assert (pasted(polygons.rle_in_box(rle), height, width) == expected).all()
    uncompressed = {"size": [height, width], "counts": whole_counts(rle["counts"])}
    assert (pasted(polygons.rle_in_box(uncompressed), height, width) == expected).all()
    text = {"size": [height, width], "counts": rle["counts"].decode()}
    assert (pasted(polygons.rle_in_box(text), height, width) == expected).all()
    labels = np.full((height, width), 7, np.uint8)
    polygons.paint(labels, shapes, 3)
    assert (labels == np.where(expected, 3, 7)).all()


@st.composite
def drawings(draw: st.DrawFn) -> tuple[list[list[float]], int, int]:
    """1 to 3 polygons around an image of 1..60 pixels a side: corners in and outside it, on pixel edges, on the finer grid where
    rounding ties are (x.1, x.3, ...), repeated, or anywhere."""
    height, width = draw(st.integers(1, 60)), draw(st.integers(1, 60))
    reach = 3 * max(height, width)
    number = st.one_of(
        st.integers(-5, 65).map(float),
        st.integers(-650, 700).map(lambda i: i / 10),
        st.floats(-reach, reach, allow_nan=False),
        st.floats(-1.0, 1.0, allow_nan=False, width=32),
    )
    corner = st.tuples(number, number)
    shapes = []
    for _ in range(draw(st.integers(1, 3))):
        corners = draw(st.lists(corner, min_size=3, max_size=9))
        if draw(st.booleans()):
            corners[-1] = corners[draw(st.integers(0, len(corners) - 2))]
        shapes.append([float(c) for pair in corners for c in pair])
    return shapes, height, width


@settings(max_examples=400, deadline=None)
@given(drawings())
def test_equals_pycocotools_for_any_polygon(drawing: tuple[list[list[float]], int, int]) -> None:
    check(*drawing)


def test_equals_pycocotools_for_long_edges_with_ties() -> None:
    """Edges hundreds of pixels long: the sum of a large coordinate and a fraction rounds otherwise than that of a small one."""
    rng = random.Random(0)
    for _ in range(60):
        height, width = rng.randint(300, 480), rng.randint(300, 640)
        shape = [rng.randrange(10 * side) / 10 for _ in range(rng.randint(3, 12)) for side in (width, height)]
        check([shape], height, width)


@pytest.mark.parametrize(
    "shape",
    [
        [3.0, 3.0, 3.0, 3.0, 3.0, 3.0],
        [0.0, 0.0, 9.0, 9.0, 4.5, 4.5],
        [-20.0, -20.0, -10.0, -20.0, -10.0, -10.0],
        [30.0, 2.0, 40.0, 2.0, 40.0, 8.0],
        [-50.0, -50.0, 60.0, -50.0, 60.0, 60.0, -50.0, 60.0],
        [4.0, -100.0, 5.0, -100.0, 5.0, 100.0, 4.0, 100.0],
        [1.0, 1.0, 9.0, 9.0, 9.0, 1.0, 1.0, 9.0],
        [-0.3, -0.3, 0.3, -0.3, 0.3, 0.3, -0.3, 0.3],
    ],
    ids=["a point", "a line", "left above", "to the right", "all around", "a bar", "a bow tie", "half a pixel"],
)
def test_equals_pycocotools_for_degenerate_polygons(shape: list[float]) -> None:
    check([shape], 10, 12)
    check([shape, [2.0, 2.0, 6.0, 2.0, 6.0, 6.0, 2.0, 6.0]], 10, 12)


def test_a_run_over_two_columns_gives_the_full_height() -> None:
    """One run from the bottom of a column to the top of the next, and zero runs as some tools write them."""
    expected = np.zeros((4, 3), bool)
    expected[2:, 0] = expected[:2, 1] = True
    for counts in ([2, 4, 6], [2, 2, 0, 2, 6], [2, 4, 6, 0]):
        assert (pasted(polygons.rle_in_box({"size": [4, 3], "counts": counts}), 4, 3) == expected).all()


def test_no_polygon_is_an_empty_mask() -> None:
    rle = polygons.to_rle([], height=5, width=7)
    assert rle["size"] == [5, 7] and coco_mask.area(rle) == 0
    assert polygons.in_box([], height=5, width=7)[2].shape == polygons.rle_in_box(rle)[2].shape == (0, 0)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ([1.0, 2.0, 3.0, 4.0], "4 numbers"),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], "7 numbers"),
        ([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], "nested 2 deep"),
        ([1.0, 2.0, 3.0, float("nan"), 5.0, 6.0], "coordinate nan"),
        ([1.0, 2.0, 3.0, float("-inf"), 5.0, 6.0], "coordinate -inf"),
        ([1.0, 2.0, 3.0, 4e9, 5.0, 6.0], "coordinate 4000000000.0, far outside its image of 20 x 10"),
    ],
)
def test_a_malformed_polygon_is_an_error_that_says_why(shape: list[Any], words: str) -> None:
    """pycocotools takes 4 numbers for a box, drops half a point, and crashes or fills the memory for the last ones."""
    for function in (polygons.to_rle, polygons.in_box):
        with pytest.raises(ValueError, match=words):
            function([shape], height=10, width=20)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([10, 20], "add up to 30 pixels; the image has 5 x 10 = 50"),
        ([30, -10, 30], "a run of -10 pixels"),
        ([50.0], "float64"),
        ([[50]], r"\(1, 1\)"),
        (b"P", "damaged"),
        (b"\x01", "damaged"),
        (b"PPPPPPPP0", "above 35 bits"),
        ("", "add up to 0"),
    ],
)
def test_damaged_run_lengths_are_an_error_that_says_why(counts: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        polygons.rle_in_box({"size": [10, 5], "counts": counts})


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=12) | st.text(alphabet="0123PQRSTUVWXYZabcmno", max_size=12))
def test_random_counts_are_decoded_as_pycocotools_does_or_refused(counts: bytes | str) -> None:
    try:
        box = polygons.rle_in_box({"size": [6, 4], "counts": counts})
    except ValueError:
        return
    data = counts.encode() if isinstance(counts, str) else counts
    assert (pasted(box, 6, 4) == decode({"size": [6, 4], "counts": data})).all()


def test_real_annotations(samples: Path) -> None:
    """The 480 annotations of the sample, crowds among them, against pycocotools' areas and boxes and its own pixels."""
    path = samples / "coco2017_tiny" / "annotations" / "instances_train2017.json"
    sizes, crowds = {}, 0
    for key, _, _, entry in coco_files.entries(path):
        if key == "images":
            sizes[entry["id"]] = entry["height"], entry["width"]
        if key == "annotations":
            height, width = sizes[entry["image_id"]]
            if entry["iscrowd"]:
                crowds += 1
                rle = dict(coco_mask.frPyObjects(entry["segmentation"], height, width))
                box = polygons.rle_in_box(entry["segmentation"])
            else:
                rle = reference(entry["segmentation"], height, width)
                box = polygons.in_box(entry["segmentation"], height=height, width=width)
            assert (pasted(box, height, width) == coco_mask.decode(rle)).all()
            assert (decode(rle) == coco_mask.decode(rle)).all(), "the reference of this file is not pycocotools'"
            assert box[2].sum() == coco_mask.area(rle)
            assert [box[1], box[0], *box[2].shape[::-1]] == list(coco_mask.toBbox(rle))
    assert crowds == 6 and len(sizes) == 50
