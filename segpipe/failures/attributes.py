"""What can be said of every true segment and of its image without asking the network: the ground on which bias is looked for.

A segment is an 8-connected component of one true class. Its surroundings are the box around it, enlarged on each side by half of
its longer side, less the segment itself. Colours are plain opponents of RGB in 0..255 (brightness, saturation = max - min, red -
green, yellow - blue = (R + G) / 2 - B), which unlike hue have no jump and no undefined values; texture is the mean absolute
difference of brightness to the left and upper neighbours. Everything comes out of one pass over an image and sums over boxes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import cv2
import numpy as np
import pandas as pd
from numba import njit

from segpipe.failures.context import Context
from segpipe.failures.labelling import connected

MOST_PIXELS = 2**18
"""Images with more pixels are looked at in every second, third, ... row and column."""
MIN_AREA = 16
"""Pixels (of those looked at): smaller segments are left out, there is nothing to describe."""
GRID = 24
"""Cells per side of the coarse maps of an image."""
BESIDE = 0.05
"""A class is beside a segment if it has at least this share of the surroundings."""
FEATURES = ("brightness", "saturation", "red_green", "yellow_blue", "texture")
NEAR, FAR = 4, 64
"""Least and most pixels by which a segment's box is enlarged."""
MOST_PLACES = 20
"""Groups, and folders of the source, are attributes where there are at least two and at most so many of them."""


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """One row per true segment of a split, and what its images look like from afar.

    `segments`: id, image (row of the split), unit, label (of `label_segments`), class, area (pixels of the image), top, left,
    bottom, right (half open), wrong (share of its pixels), predicted (the class that most of it got), confused (the wrong class
    that at least half of it went to, or -1), around (the class that most of its surroundings have, or -1), and the attributes
    `names`: numbers (NaN = unknown; 0 or 1 for yes or no), or words.
    `grids` float16 (N, GRID, GRID, 5) are means of FEATURES; `classes` (N, GRID, GRID) the class at the middle of each cell.
    """

    segments: pd.DataFrame
    names: tuple[str, ...]
    grids: np.ndarray
    classes: np.ndarray


def collect(context: Context) -> Attributes:
    """The attributes of all segments of a split with at least MIN_AREA pixels."""
    ids, classes = context.split.ids, len(context.class_names)
    grids = np.zeros((len(ids), GRID, GRID, len(FEATURES)), np.float16)
    coarse = np.zeros((len(ids), GRID, GRID), np.uint16)
    tables, present = [], np.zeros((len(ids), classes), bool)
    for row, name in enumerate(ids):
        image, target, prediction = context.arrays(name)
        table, grids[row], coarse[row], present[row] = describe(
            image, target, prediction, num_classes=classes, ignore_index=context.ignore_index
        )
        table["image"] = np.full(len(table["class"]), row)
        tables.append(table)
    columns = {key: np.concatenate([table[key] for table in tables]) for key in tables[0]} if tables else {}
    beside = columns.pop("beside", np.zeros((0, classes), bool))
    segments = pd.DataFrame(columns)
    of = segments["image"].to_numpy(np.int64)
    segments.insert(0, "id", np.asarray(ids, object)[of])
    segments.insert(1, "unit", context.units[of])
    names = [key for key in columns if "/" in key]
    own = segments["class"].to_numpy()
    extra: dict[str, np.ndarray] = {"image/classes": present.sum(axis=1)[of].astype(np.float32)}
    for c in range(classes):
        # Of a class's own segments nothing is said: it is always there.
        for key, values in ((f"with/{c}", present[of, c]), (f"beside/{c}", beside[:, c])):
            extra[key] = np.where(own == c, np.nan, values.astype(np.float32))
    extra |= _places(context, of)
    segments = pd.concat([segments, pd.DataFrame(extra, index=segments.index)], axis=1)
    return Attributes(segments=segments, names=(*names, *extra), grids=grids, classes=coarse)


def _places(context: Context, of: np.ndarray) -> dict[str, np.ndarray]:
    """Where an image came from, as words, for each position in `of`."""
    folders = [str(PurePosixPath(source).parent) if source else "" for source in context.split.column("source")]
    columns = {"group": [group or "" for group in context.split.column("group")], "folder": folders}
    return {key: np.asarray(words, object)[of] for key, words in columns.items() if 2 <= len(set(words)) <= MOST_PLACES}


def stride_of(height: int, width: int) -> int:
    """Every how many rows and columns of an image are looked at."""
    return max(1, math.ceil(math.sqrt(height * width / MOST_PIXELS)))


def label_segments(target: np.ndarray, *, ignore_index: int) -> tuple[np.ndarray, int, int]:
    """int32 labels (h, w) of the true segments at every `stride`-th row and column, their number, and the stride."""
    stride = stride_of(*target.shape)
    seen = target[::stride, ::stride].astype(np.int32)
    labels, count = connected(np.where(seen == ignore_index, 0, seen + 1))
    return labels, count, stride


def masks_of(target: np.ndarray, labels: Sequence[int], *, ignore_index: int) -> np.ndarray:
    """bool (n, H, W): the segments of `target` with these labels (of `label_segments`), at its full size."""
    found, _, stride = label_segments(target, ignore_index=ignore_index)
    masks = []
    for label in labels:
        inside = found == label
        c = target[::stride, ::stride][inside][0]
        large = np.repeat(np.repeat(inside, stride, axis=0), stride, axis=1)[: target.shape[0], : target.shape[1]]
        masks.append(large & (target == c))
    return np.stack(masks)


def describe(
    image: np.ndarray, target: np.ndarray, prediction: np.ndarray, *, num_classes: int, ignore_index: int
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """The segments of one image uint8 (H, W, 3): columns as in `Attributes` (and beside, bool (n, K)), the two coarse maps of the
    image, and which classes it holds, bool (K,)."""
    labels, count, stride = label_segments(target, ignore_index=ignore_index)
    seen = np.ascontiguousarray(image[::stride, ::stride])
    truth = np.ascontiguousarray(target[::stride, ::stride])
    guess = np.ascontiguousarray(prediction[::stride, ::stride])
    assert guess.max(initial=0) < num_classes, f"a prediction holds {guess.max()}, and there are {num_classes} classes"
    height, width = truth.shape
    grey = cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY)
    integral = np.zeros((height + 1, width + 1, len(FEATURES)), np.int32)
    sums = np.zeros((count + 1, len(FEATURES)), np.int64)
    boxes, of = np.zeros((count + 1, 4), np.int32), np.zeros(count + 1, np.int64)
    votes = np.zeros((count + 1, num_classes), np.int32)
    image_sums = _one_pass(seen, grey, truth, guess, labels, integral, sums, boxes, of, votes)
    areas = votes.sum(axis=1)
    kept = np.flatnonzero((areas >= MIN_AREA) & (np.arange(count + 1) > 0))
    own, area = of[kept], areas[kept].astype(np.float64)
    top, left, bottom, right = boxes[kept].T
    reach = np.clip(np.maximum(bottom - top, right - left) // 2, max(1, NEAR // stride), max(2, FAR // stride))
    least, most = np.maximum([top - reach, left - reach], 0), np.minimum([bottom + reach, right + reach], [[height], [width]])
    large = np.concatenate([least, most]).T
    whole = _box_sums(integral, large)
    rest = (large[:, 2] - large[:, 0]) * (large[:, 3] - large[:, 1]) - area
    with np.errstate(divide="ignore", invalid="ignore"):
        around = np.where((rest >= 0.05 * area)[:, None], (whole - sums[kept]) / rest[:, None], np.nan)
    inside = sums[kept] / area[:, None]
    neighbours = _neighbours(truth, labels, kept, large, num_classes)
    beside = neighbours / np.maximum(neighbours.sum(axis=1, keepdims=True), 1)
    best, most = votes[kept].argmax(axis=1), votes[kept].max(axis=1)
    table: dict[str, np.ndarray] = {
        "label": kept,
        "class": own,
        "area": (area * stride**2).astype(np.int64),
        **{key: box * stride for key, box in zip(("top", "left", "bottom", "right"), (top, left, bottom, right), strict=True)},
        "wrong": 1 - votes[kept, own] / area,
        "predicted": best,
        "confused": np.where((best != own) & (2 * most >= area), best, -1),
        "around": np.where(neighbours.any(axis=1), neighbours.argmax(axis=1), -1),
        "beside": beside >= BESIDE,
    }
    pixels = height * width
    light = image_sums[0] / pixels
    curved = max(0.0, image_sums[3] / pixels - (image_sums[2] / pixels) ** 2)
    whole_image = integral[-1, -1] / pixels
    numbers = {f"around/{name}": around[:, i] for i, name in enumerate(FEATURES)}
    numbers |= {f"object/{name}": inside[:, i] for i, name in enumerate(FEATURES)}
    numbers |= {f"image/{name}": np.full(len(kept), whole_image[i]) for i, name in enumerate(FEATURES)}
    numbers |= {
        "image/contrast": np.full(len(kept), math.sqrt(max(0.0, image_sums[1] / pixels - light**2))),
        "image/sharpness": np.full(len(kept), math.log1p(curved)),
        "object/contrast": np.abs(inside[:, 0] - around[:, 0]),
        "object/size": np.log2(area * stride**2),
        "object/shape": np.log2((bottom - top) / (right - left)),
        "object/row": (top + bottom) / 2 / height,
        "object/column": (left + right) / 2 / width,
        "object/border": ((top == 0) | (left == 0) | (bottom == height) | (right == width)),
        "object/others": np.bincount(own, minlength=num_classes)[own] - 1,
    }
    table |= {name: values.astype(np.float32) for name, values in numbers.items()}
    present = np.bincount(of[1:], minlength=num_classes)[:num_classes] > 0
    return table, *_from_afar(integral, truth), present


def _from_afar(integral: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The coarse maps of an image: means of the features, and the class in the middle of each cell."""
    rows, columns = (np.linspace(0, side, GRID + 1).astype(np.int64) for side in truth.shape)
    corners = [np.repeat(rows[:-1], GRID), np.tile(columns[:-1], GRID), np.repeat(rows[1:], GRID), np.tile(columns[1:], GRID)]
    cells = np.stack(corners, axis=1)
    # Images with fewer than GRID pixels on a side have empty cells: those take the pixel at their start.
    cells[:, :2] = np.minimum(cells[:, :2], np.array(truth.shape) - 1)
    cells[:, 2:] = np.maximum(cells[:, 2:], cells[:, :2] + 1)
    sizes = (cells[:, 2] - cells[:, 0]) * (cells[:, 3] - cells[:, 1])
    grid = (_box_sums(integral, cells) / sizes[:, None]).astype(np.float16).reshape(GRID, GRID, -1)
    middle: np.ndarray = truth[np.ix_((rows[:-1] + rows[1:]) // 2, (columns[:-1] + columns[1:]) // 2)]
    return grid, middle


def _box_sums(integral: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Sums of the features over boxes (n, 4) = top, left, bottom, right; int64 (n, F)."""
    top, left, bottom, right = boxes.T
    wide = integral[bottom, right].astype(np.int64)
    sums: np.ndarray = wide - integral[top, right] - integral[bottom, left] + integral[top, left]
    return sums


@njit(cache=True, nogil=True)
def _one_pass(
    image: np.ndarray,
    grey: np.ndarray,
    truth: np.ndarray,
    guess: np.ndarray,
    labels: np.ndarray,
    integral: np.ndarray,
    sums: np.ndarray,
    boxes: np.ndarray,
    of: np.ndarray,
    votes: np.ndarray,
) -> np.ndarray:
    """Fill the integral images of the features and the sums per segment; returns the image's sums of brightness, its square, its
    Laplacian and the square of that, float64 (4,)."""
    height, width = grey.shape
    zero = np.int64(0)
    light_squares, bend_sum, bend_squares = zero, zero, zero
    for y in range(height):
        r0, r1, r2, r3, r4 = zero, zero, zero, zero, zero  # sums of the features in this row so far,
        s0, s1, s2, s3, s4 = zero, zero, zero, zero, zero  # and before the present run of pixels of one segment
        start = 0
        for x in range(width):
            red, green, blue = np.int64(image[y, x, 0]), np.int64(image[y, x, 1]), np.int64(image[y, x, 2])
            light = np.int64(grey[y, x])
            across = light - np.int64(grey[y, x - 1]) if x > 0 else zero
            down = light - np.int64(grey[y - 1, x]) if y > 0 else zero
            r0 += light
            r1 += max(red, green, blue) - min(red, green, blue)
            r2 += red - green
            r3 += ((red + green) >> 1) - blue
            r4 += abs(across) + abs(down)
            here, above = integral[y + 1, x + 1], integral[y, x + 1]
            here[0], here[1], here[2] = above[0] + r0, above[1] + r1, above[2] + r2
            here[3], here[4] = above[3] + r3, above[4] + r4
            light_squares += light * light
            if 0 < y < height - 1 and 0 < x < width - 1:
                bend = across + down + 2 * light - np.int64(grey[y, x + 1]) - np.int64(grey[y + 1, x])
                bend_sum += bend
                bend_squares += bend * bend
            k = labels[y, x]
            if k != 0:
                votes[k, guess[y, x]] += 1
            if x + 1 == width or labels[y, x + 1] != k:
                if k != 0:
                    if boxes[k, 2] == 0:
                        of[k] = truth[y, x]
                        boxes[k, 0], boxes[k, 1] = y, start
                    boxes[k, 1] = min(boxes[k, 1], start)
                    boxes[k, 2] = y + 1
                    boxes[k, 3] = max(boxes[k, 3], x + 1)
                    total = sums[k]
                    total[0] += r0 - s0
                    total[1] += r1 - s1
                    total[2] += r2 - s2
                    total[3] += r3 - s3
                    total[4] += r4 - s4
                s0, s1, s2, s3, s4 = r0, r1, r2, r3, r4
                start = x + 1
    light_sum = integral[height, width, 0]
    return np.array([light_sum, light_squares, bend_sum, bend_squares], np.float64)


@njit(cache=True, nogil=True)
def _neighbours(truth: np.ndarray, labels: np.ndarray, kept: np.ndarray, boxes: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (n, K): the classes at up to 16 x 16 even places of each box, without the segment itself and what is ignored."""
    counts = np.zeros((len(kept), num_classes), np.int64)
    for i in range(len(kept)):
        down, across = max(1, (boxes[i, 2] - boxes[i, 0]) // 16), max(1, (boxes[i, 3] - boxes[i, 1]) // 16)
        for y in range(boxes[i, 0], boxes[i, 2], down):
            for x in range(boxes[i, 1], boxes[i, 3], across):
                if labels[y, x] != 0 and labels[y, x] != kept[i]:
                    counts[i, truth[y, x]] += 1
    return counts
