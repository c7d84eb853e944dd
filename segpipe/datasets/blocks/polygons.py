"""Polygons and run lengths to masks, exactly as pycocotools makes them, but decoded only inside the box of the mask.

pycocotools fills a polygon on a grid five times finer than the pixels and rounds where an edge runs exactly between two points of
that grid; which way the rounding falls depends on the coordinates' size, so a polygon that was first shifted to its box may gain or
lose a pixel. Here pycocotools' own code therefore always traces the polygon where it is (which costs as much as its outline is
long), and only the decoding, which costs as much as the image is large, is left to the box. The run lengths are read
with numpy: `pycocotools.mask.decode` (2.0.11) is deprecated under numpy 2, as its array cannot say whether it copies.

A polygon is a flat list x0, y0, x1, y1, ... in pixels, x to the right and y down, the corner of the image at (0, 0). Run lengths
are COCO's {"size": [height, width], "counts": ...} down the columns, zeros first; counts are compressed bytes or text, or a list.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

FARTHEST = 4
"""A corner may lie 1000 pixels and this many image sides outside: pycocotools' memory grows with the length of the outline."""
COUNTS = re.compile(rb"([P-o]{0,6}[0-O])*")
"""Compressed counts: numbers of up to 7 characters, of which all but the last are `FIRST_BUT_LAST` or above."""
FIRST_BUT_LAST = ord("P")
DIGITS = np.array([(c - 48 & 31) - (32 if 64 <= c < FIRST_BUT_LAST else 0) for c in range(256)], np.int64)
"""What each character adds to its number, before it is shifted to its place; the last one also has the sign."""


def to_rle(polygons: Sequence[Sequence[float]], *, height: int, width: int) -> dict[str, Any]:
    """COCO's compressed run lengths {"size": [height, width], "counts": bytes} of the union of `polygons`; of none it is empty.

    The same bytes as pycocotools' `merge(frPyObjects(polygons, height, width))`.

    Raises:
        ValueError: a polygon has fewer than 3 points or half a point, or a coordinate is no number or far outside the image.
    """
    if not len(polygons):
        return dict(coco_mask.frPyObjects({"size": [height, width], "counts": [height * width]}, height, width))
    arrays = []
    limit = 1000 + FARTHEST * max(height, width)
    for polygon in polygons:
        points = np.array(polygon, np.float64)
        if points.ndim != 1 or points.size < 6 or points.size % 2:
            what = f"{points.size} numbers" if points.ndim == 1 else f"lists nested {points.ndim} deep"
            raise ValueError(f"a polygon of {what}; should be a flat list x, y, x, y, ... of 3 points or more")
        if not (points.max() <= limit and points.min() >= -limit):  # false for NaN too
            worst = points[~(np.abs(points) <= limit)][0]
            raise ValueError(f"a polygon has the coordinate {worst}, far outside its image of {width} x {height} pixels")
        arrays.append(points)
    rles = coco_mask.frPyObjects(arrays, height, width)
    return dict(rles[0] if len(rles) == 1 else coco_mask.merge(rles))


def in_box(polygons: Sequence[Sequence[float]], *, height: int, width: int) -> tuple[int, int, np.ndarray]:
    """The union of `polygons` inside the smallest box that holds its pixels.

    Returns the box's top row and left column in the image, and the mask, bool (rows, columns) of the box; (0, 0, shape (0, 0))
    if no pixel is inside. Every pixel equals pycocotools' full decode of the image.

    Raises:
        ValueError: as `to_rle`.
    """
    return _in_box(_run_lengths(to_rle(polygons, height=height, width=width)["counts"]), height)


def rle_in_box(rle: Mapping[str, Any]) -> tuple[int, int, np.ndarray]:
    """As `in_box`, of run lengths {"size": [height, width], "counts": bytes, text or list}.

    Raises:
        ValueError: the counts are damaged, or do not add up to the size.
    """
    height, width = rle["size"]
    counts = rle["counts"]
    if isinstance(counts, str | bytes):
        counts = counts.encode() if isinstance(counts, str) else counts
        if COUNTS.fullmatch(counts) is None:
            raise ValueError(
                "compressed run lengths are damaged: a character outside '0'..'o', or a number is cut or above 35 bits"
            )
        runs = _run_lengths(counts) if counts else np.zeros(0, np.int64)
    else:
        runs = np.asarray(counts)
        if runs.ndim != 1 or (runs.size and runs.dtype.kind not in "iu"):
            raise ValueError(f"run lengths are {runs.dtype} {runs.shape}; should be a flat list of whole numbers")
        runs = runs.astype(np.int64)
    wrong = runs[(runs < 0) | (runs > height * width)]
    if wrong.size:
        raise ValueError(f"a run of {wrong[0]} pixels in an image of {width} x {height}")
    if runs.sum() != height * width:
        raise ValueError(f"run lengths add up to {runs.sum()} pixels; the image has {width} x {height} = {height * width}")
    return _in_box(runs, height)


def paint(labels: np.ndarray, polygons: Sequence[Sequence[float]], value: int) -> None:
    """Set `labels` (H, W) to `value` inside the union of `polygons`, in place.

    Raises:
        ValueError: as `to_rle`.
    """
    top, left, mask = in_box(polygons, height=labels.shape[0], width=labels.shape[1])
    labels[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = value


def _run_lengths(counts: bytes) -> np.ndarray:
    """int64 (runs,) of COCO's compressed counts: groups of 5 bits from the character "0" up, lowest first, a sixth bit on all but
    the last of a number, whose highest bit is the sign; from the fourth number on, the difference to the number two before."""
    codes = np.frombuffer(counts, np.uint8)
    ends = np.flatnonzero(codes < FIRST_BUT_LAST)
    starts = np.zeros_like(ends)
    starts[1:] = ends[:-1] + 1
    bits = 5 * (np.arange(codes.size) - np.repeat(starts, ends - starts + 1))
    runs = np.add.reduceat(DIGITS[codes] << bits, starts)
    np.cumsum(runs[1::2], out=runs[1::2])
    np.cumsum(runs[2::2], out=runs[2::2])
    return runs


def _in_box(runs: np.ndarray, height: int) -> tuple[int, int, np.ndarray]:
    """The box and the mask of run lengths int64 down columns of `height` pixels."""
    edges = np.cumsum(runs)
    starts, stops = edges[0:-1:2], edges[1::2]
    if not runs[1::2].all():  # runs of no pixel, as some tools write them
        starts, stops = starts[stops > starts], stops[stops > starts]
    if not starts.size:
        return 0, 0, np.zeros((0, 0), bool)
    first_column, first_row = np.divmod(starts, height)
    last_column, last_row = np.divmod(stops - 1, height)
    crosses = (first_column != last_column).any()  # a run that goes on in the next column touches both the last and the first row
    top, bottom = (0, height) if crosses else (int(first_row.min()), int(last_row.max()) + 1)
    left, right = int(first_column[0]), int(last_column[-1]) + 1
    rows, columns = bottom - top, right - left
    edges = np.empty(2 * starts.size + 2, np.int64)
    edges[0], edges[-1] = 0, rows * columns
    edges[1:-1:2] = (first_column - left) * rows + (first_row - top)
    edges[2:-1:2] = (last_column - left) * rows + (last_row - top) + 1
    inside = np.zeros(edges.size - 1, bool)
    inside[1::2] = True
    return top, left, np.repeat(inside, np.diff(edges)).reshape(columns, rows).T
