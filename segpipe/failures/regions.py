"""Error regions: 8-connected groups of wrong pixels that share their true and their predicted class, in one pass over the image.

All class pairs are labelled together: neighbours join when their code (true class, predicted class) is equal, so the cost does
not grow with the number of pairs. The same labelling gives the segments of the ground truth and of the prediction.
"""

import numpy as np
from numba import njit

from segpipe.failures.bridges import Segments, contacts
from segpipe.failures.extent import extents
from segpipe.failures.labelling import label

COLUMNS = {
    "region": np.int32,  # 1, 2, ... inside its image, in scan order
    "true": np.int32,
    "predicted": np.int32,
    "area": np.int64,  # pixels
    "top": np.int32,  # bounding box, half open: rows top..bottom-1, columns left..right-1
    "left": np.int32,
    "bottom": np.int32,
    "right": np.int32,
    "row": np.float32,  # centroid
    "column": np.float32,
    "touches_border": np.bool_,
    "thickness": np.int32,  # width of the widest part, pixels: 1 for a line of single pixels
    "boundary_share": np.float32,  # share of pixels near ground truth of the predicted class
    "segment_area": np.int64,  # of the true class's segment that holds the region
    "segment_share": np.float32,  # share of that segment with this region's predicted class
    "segment_correct": np.float32,  # share of that segment that is predicted right
    "predicted_area": np.int64,  # of the predicted segment that holds the region
    "predicted_correct": np.float32,  # share of the predicted segment that is right
    "touches_true": np.bool_,  # a right pixel of that true segment is next to it: the prediction stops short of it
    "touches_predicted": np.bool_,  # a right pixel of that predicted segment is: the prediction runs over
    "joins": np.bool_,  # it bridges true segments inside one predicted segment, see `bridges`
    "cuts": np.bool_,  # it parts predicted segments inside one true segment
    "confidence": np.float32,  # mean probability of the predicted class; NaN if unknown
}


def boundary_radius(height: int, width: int) -> float:
    """How near, in pixels, counts as "at the boundary": 0.75 % of the diagonal and at least 3."""
    return max(3.0, 0.0075 * float(np.hypot(height, width)))


def error_regions(
    target: np.ndarray, *, prediction: np.ndarray, num_classes: int, ignore_index: int, confidence: np.ndarray | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Find and measure the error regions of one image.

    Args:
        target: label indices (H, W); pixels equal to `ignore_index` are no errors and belong to no segment.
        prediction: label indices (H, W).
        confidence: uint8 (H, W), 255 times the probability of the predicted class.

    Returns:
        labels int32 (H, W), 0 where the pixel is right or ignored, and a table of columns (see COLUMNS), row i holding the
        region with label i + 1. The areas sum to the number of wrong pixels.

    Raises:
        ValueError: the shapes differ, or a label on a valid pixel is no class.
    """
    if target.shape != prediction.shape:
        raise ValueError(f"the prediction is {prediction.shape}, the ground truth {target.shape}; they must be equal")
    truth, guess = np.ascontiguousarray(target, np.int32), np.ascontiguousarray(prediction, np.int32)
    codes = np.empty((3, *truth.shape), np.int32)
    bad = _codes(truth, guess, num_classes, ignore_index, codes)
    if bad >= 0:
        name, value = "ground truth", int(truth.ravel()[bad])
        if 0 <= value < num_classes:
            name, value = "prediction", int(guess.ravel()[bad])
        raise ValueError(f"the {name} holds label {value}, but there are {num_classes} classes")
    labels, count = codes[0], label(codes[0])
    table: dict[str, np.ndarray] = {name: np.zeros(count, dtype) for name, dtype in COLUMNS.items()}
    if count == 0:
        return labels, table
    height, width = target.shape
    boxes, sums, near, depth = extents(labels, count, truth, guess, boundary_radius(height, width))
    first, area = boxes[:, 4], boxes[:, 5]
    table["region"][:] = np.arange(1, count + 1)
    table["true"][:], table["predicted"][:] = truth.ravel()[first], guess.ravel()[first]
    table["area"][:] = area
    for i, name in enumerate(("top", "left", "bottom", "right")):
        table[name][:] = boxes[:, i]
    table["row"][:], table["column"][:] = sums[:, 0] / area, sums[:, 1] / area
    table["touches_border"][:] = (boxes[:, 0] == 0) | (boxes[:, 1] == 0) | (boxes[:, 2] == height) | (boxes[:, 3] == width)
    table["thickness"][:] = np.ceil(2 * np.sqrt(depth) - 1)
    table["boundary_share"][:] = near / area
    numbers = (label(codes[1]), label(codes[2]))
    touching, true, predicted = contacts(labels, count=count, true=codes[1], predicted=codes[2], numbers=numbers)
    for name in ("touches_true", "touches_predicted", "joins", "cuts"):
        table[name][:] = getattr(touching, name)
    segment = _around(true, first, table, "segment")
    _around(predicted, first, table, "predicted")
    key = segment.astype(np.int64) * num_classes + table["predicted"]
    table["segment_share"][:] = np.bincount(key, weights=area)[key] / table["segment_area"]
    table["confidence"][:] = np.nan if confidence is None else _sums(labels, count, confidence) / area / 255
    return labels, table


def _around(segments: Segments, first: np.ndarray, table: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Fill the area and the right share of the segment around each flat position of `first`; its labels (n,)."""
    of: np.ndarray = segments.labels.ravel()[first]
    table[f"{name}_area"][:] = segments.area[of]
    table[f"{name}_correct"][:] = segments.right[of] / segments.area[of]
    return of


@njit(cache=True, nogil=True)
def _codes(truth: np.ndarray, guess: np.ndarray, classes: int, ignored: int, codes: np.ndarray) -> int:
    """Fill the codes (3, H, W) of errors, true and predicted segments, 0 for none; the flat position of a pixel that holds no
    class, or -1."""
    height, width = truth.shape
    for y in range(height):
        for x in range(width):
            t, p = truth[y, x], guess[y, x]
            if t == ignored:
                codes[0, y, x], codes[1, y, x], codes[2, y, x] = 0, 0, 0
                continue
            if t < 0 or t >= classes or p < 0 or p >= classes:
                return y * width + x
            codes[0, y, x] = 0 if t == p else t * classes + p + 1
            codes[1, y, x], codes[2, y, x] = t + 1, p + 1
    return -1


@njit(cache=True, nogil=True)
def _sums(labels: np.ndarray, count: int, values: np.ndarray) -> np.ndarray:
    """float64 (count,): the sum of `values` over each label 1..count."""
    sums = np.zeros(count, np.float64)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] > 0:
                sums[labels[y, x] - 1] += values[y, x]
    return sums
