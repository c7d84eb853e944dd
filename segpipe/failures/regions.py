"""Error regions: 8-connected groups of wrong pixels that share their true and their predicted class, in one pass over the image.

All class pairs are labelled together: neighbours join when their code (true class, predicted class) is equal, so the cost does
not grow with the number of pairs. The same labelling gives the segments of the ground truth and of the prediction.
"""

import numpy as np
from numba import njit

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
}


def boundary_radius(height: int, width: int) -> float:
    """How near, in pixels, counts as "at the boundary": 0.75 % of the diagonal and at least 3."""
    return max(3.0, 0.0075 * float(np.hypot(height, width)))


def connected(code: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the 8-connected groups of equal non-zero codes.

    Args:
        code: integers (H, W), 0 for background.

    Returns:
        int32 (H, W) labels 1..n in scan order of their first pixels (0 where `code` is 0), and n.
    """
    assert code.ndim == 2, code.shape
    labels = np.empty(code.shape, np.int32)
    count = _connected(np.ascontiguousarray(code, dtype=np.int64), labels)
    return labels, int(count)


def error_regions(
    target: np.ndarray, *, prediction: np.ndarray, num_classes: int, ignore_index: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Find and measure the error regions of one image.

    Args:
        target: label indices (H, W); pixels equal to `ignore_index` are no errors and belong to no segment.
        prediction: label indices (H, W).

    Returns:
        labels int32 (H, W), 0 where the pixel is right or ignored, and a table of columns (see COLUMNS), row i holding the
        region with label i + 1. The areas sum to the number of wrong pixels.

    Raises:
        ValueError: the shapes differ, or a label on a valid pixel is no class.
    """
    if target.shape != prediction.shape:
        raise ValueError(f"the prediction is {prediction.shape}, the ground truth {target.shape}; they must be equal")
    truth, guess = target.astype(np.int64), prediction.astype(np.int64)
    valid = truth != ignore_index
    for name, array in (("ground truth", truth), ("prediction", guess)):
        wrong = valid & ((array < 0) | (array >= num_classes))
        if wrong.any():
            raise ValueError(f"the {name} holds label {array[wrong][0]}, but there are {num_classes} classes")
    code = np.where(valid & (truth != guess), truth * num_classes + guess + 1, 0)
    labels, count = connected(code)
    table: dict[str, np.ndarray] = {name: np.zeros(count, dtype) for name, dtype in COLUMNS.items()}
    if count == 0:
        return labels, table
    height, width = target.shape
    boxes, sums, near, depth = _measure(labels, count, truth, guess, boundary_radius(height, width))
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
    segment, segment_area, segment_correct = _segments(np.where(valid, truth + 1, 0), truth == guess, first)
    table["segment_area"][:], table["segment_correct"][:] = segment_area, segment_correct
    covered = np.zeros(int(segment.max() + 1) * num_classes)
    np.add.at(covered, segment * num_classes + table["predicted"], area)
    table["segment_share"][:] = covered[segment * num_classes + table["predicted"]] / segment_area
    _, area_predicted, correct = _segments(np.where(valid, guess + 1, 0), truth == guess, first)
    table["predicted_area"][:], table["predicted_correct"][:] = area_predicted, correct
    return labels, table


def _segments(code: np.ndarray, right: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The segment around each flat position of `first`: its label, its area and the share of it that is `right`."""
    labels, count = connected(code)
    areas = np.bincount(labels.ravel(), minlength=count + 1)
    correct = np.bincount(labels[right], minlength=count + 1)
    of = labels.ravel()[first].astype(np.int64)
    return of, areas[of], correct[of] / areas[of]


@njit(cache=True, nogil=True)
def _root(parent: np.ndarray, i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def _connected(code: np.ndarray, labels: np.ndarray) -> int:
    height, width = code.shape
    parent = np.empty(height * width + 1, np.int32)
    parent[0] = 0
    last = 0
    for y in range(height):
        for x in range(width):
            c = code[y, x]
            if c == 0:
                labels[y, x] = 0
                continue
            label = 0
            # The four neighbours already seen: left, then the three above. Roots only ever point to smaller labels.
            for k in range(4):
                ny, nx = (y, x - 1) if k == 0 else (y - 1, x - 2 + k)
                if ny < 0 or nx < 0 or nx >= width or code[ny, nx] != c:
                    continue
                other = _root(parent, labels[ny, nx])
                if label == 0:
                    label = other
                elif other != label:
                    low, high = min(label, other), max(label, other)
                    parent[high] = low
                    label = low
            if label == 0:
                last += 1
                label = last
                parent[label] = label
            labels[y, x] = label
    count = 0
    for i in range(1, last + 1):
        # Parents are smaller than their children, so they are final by now: the array turns into the final numbering.
        if parent[i] == i:
            count += 1
            parent[i] = count
        else:
            parent[i] = parent[parent[i]]
    for y in range(height):
        for x in range(width):
            labels[y, x] = parent[labels[y, x]]
    return count


@njit(cache=True, nogil=True)
def _measure(
    labels: np.ndarray, count: int, truth: np.ndarray, guess: np.ndarray, radius: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Per region: box, first pixel and area; sums of rows and columns; pixels near true `guess`; greatest squared depth.

    The depth of a pixel is its distance to the nearest pixel outside its region; beyond the image's edge is outside.
    """
    height, width = labels.shape
    boxes = np.zeros((count, 6), np.int64)
    boxes[:, 0], boxes[:, 1], boxes[:, 4] = height, width, -1
    sums = np.zeros((count, 2), np.float64)
    near = np.zeros(count, np.int64)
    depth = np.zeros(count, np.int64)
    across = _row_depth(labels)
    bound = np.zeros((height, width), np.float64)
    for y in range(height):
        hit, known, before = (-1, -1), False, -1
        for x in range(width):
            if labels[y, x] == 0:
                before = -1
                continue
            i = labels[y, x] - 1
            boxes[i, 0], boxes[i, 1] = min(boxes[i, 0], y), min(boxes[i, 1], x)
            boxes[i, 2], boxes[i, 3] = max(boxes[i, 2], y + 1), max(boxes[i, 3], x + 1)
            if boxes[i, 4] < 0:
                boxes[i, 4] = y * width + x
            boxes[i, 5] += 1
            sums[i, 0] += y
            sums[i, 1] += x
            # The left neighbour's answer often holds here too: its find may still be near, and where it found nothing only
            # the disc's right rim is new.
            known = before == guess[y, x]
            if not (known and hit[0] >= 0 and (hit[0] - y) ** 2 + (hit[1] - x) ** 2 <= radius * radius):
                hit = _nearby(truth, y, x, guess[y, x], radius, known and hit[0] < 0)
            before = guess[y, x]
            near[i] += hit[0] >= 0
            # Depth changes by at most 1 per pixel, so most pixels are known to be no deeper than the deepest so far.
            above = bound[y - 1, x] if y > 0 and labels[y - 1, x] == labels[y, x] else 0.0
            left = bound[y, x - 1] if x > 0 and labels[y, x - 1] == labels[y, x] else 0.0
            bound[y, x] = min(above + 1, left + 1, float(across[y, x]))
            if bound[y, x] > np.sqrt(depth[i]) + 1e-6:
                exact = _depth(labels, across, y, x)
                depth[i] = max(depth[i], exact)
                bound[y, x] = np.sqrt(exact)
    return boxes, sums, near, depth


@njit(cache=True, nogil=True)
def _row_depth(labels: np.ndarray) -> np.ndarray:
    """Distance along the row to the nearest pixel of another label (or the image's edge); 0 where the label is 0."""
    height, width = labels.shape
    across = np.zeros((height, width), np.int32)
    for y in range(height):
        start = 0
        for x in range(1, width + 1):
            if x == width or labels[y, x] != labels[y, start]:
                if labels[y, start] != 0:
                    for k in range(start, x):
                        across[y, k] = min(k - start + 1, x - k)
                start = x
    return across


@njit(cache=True, nogil=True)
def _depth(labels: np.ndarray, across: np.ndarray, y: int, x: int) -> int:
    """The exact squared distance from (y, x) to the nearest pixel of another label or beyond the edge.

    Walks up and down the column while the label lasts and a step alone is nearer than the best found; the first foreign pixel
    met ends a walk at distance `step`, and no pixel beyond it can be nearer.
    """
    height = labels.shape[0]
    label = labels[y, x]
    best = across[y, x] * across[y, x]
    for sign in (-1, 1):
        step = 1
        while step * step < best:
            row = y + sign * step
            if row < 0 or row >= height or labels[row, x] != label:
                best = step * step
                break
            best = min(best, step * step + across[row, x] * across[row, x])
            step += 1
    return best


@njit(cache=True, nogil=True)
def _nearby(truth: np.ndarray, y: int, x: int, wanted: int, radius: float, rim: bool) -> tuple[int, int]:
    """The position of a pixel of class `wanted` within `radius` of (y, x), or (-1, -1). `rim` looks at the right rim only."""
    height, width = truth.shape
    for step in range(int(radius) + 1):
        half = int(np.sqrt(radius * radius - step * step))
        for sign in (-1, 1):
            row = y + sign * step
            if row < 0 or row >= height:
                continue
            for column in range(x + half if rim else max(0, x - half), min(width, x + half + 1)):
                if truth[row, column] == wanted:
                    return row, column
    return -1, -1
