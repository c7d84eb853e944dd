"""How far the error regions of an image reach, how thick they are, and how near they lie to the predicted class's truth."""

import numpy as np
from numba import njit

BLOCK = 8
"""Pixels of a side of the blocks in which the classes near a pixel are looked up before the pixel's own surroundings are."""


@njit(cache=True, nogil=True)
def extents(
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
    depth, deepest = np.zeros(count, np.int64), np.zeros(count, np.float64)
    across, classes, halves = _row_depth(labels), _classes_near(truth, radius), _halves(radius)
    bounds = np.zeros(width, np.float64)
    # Of the last pixel seen in each column: its predicted class (-1 where it was no error), and where that was found near it.
    wanted, found = np.full(width, -1, np.int32), np.full((width, 2), -1, np.int32)
    for y in range(height):
        for x in range(width):
            label, p = labels[y, x], guess[y, x]
            if label == 0:
                wanted[x] = -1
                continue
            i = label - 1
            if boxes[i, 4] < 0:
                boxes[i, 0], boxes[i, 4] = y, y * width + x
            boxes[i, 1], boxes[i, 2], boxes[i, 3] = min(boxes[i, 1], x), y + 1, max(boxes[i, 3], x + 1)
            boxes[i, 5] += 1
            sums[i, 0] += y
            sums[i, 1] += x
            # What was found for the pixel above or to the left may be near this one too; where nothing was, only the rim of this
            # pixel's disc is new.
            above, left = wanted[x] == p, x > 0 and wanted[x - 1] == p
            hy, hx = -1, -1
            if classes[y // BLOCK, x // BLOCK] >> np.uint64(p % 64) & np.uint64(1):
                if above and found[x, 0] >= 0 and (found[x, 0] - y) ** 2 + (found[x, 1] - x) ** 2 <= radius * radius:
                    hy, hx = found[x, 0], found[x, 1]
                elif left and found[x - 1, 0] >= 0 and (found[x - 1, 0] - y) ** 2 + (found[x - 1, 1] - x) ** 2 <= radius * radius:
                    hy, hx = found[x - 1, 0], found[x - 1, 1]
                else:
                    hy, hx = _nearby(truth, y, x, p, halves, above and found[x, 0] < 0, left and found[x - 1, 0] < 0)
            wanted[x], found[x, 0], found[x, 1] = p, hy, hx
            near[i] += hy >= 0
            # Depth changes by at most 1 per pixel, so most pixels are known to be no deeper than the deepest so far.
            up = bounds[x] + 1 if y > 0 and labels[y - 1, x] == label else 1.0
            back = bounds[x - 1] + 1 if x > 0 and labels[y, x - 1] == label else 1.0
            bounds[x] = min(up, back, float(across[y, x]))
            if bounds[x] > deepest[i] + 1e-6:
                exact = _depth(labels, across, y, x)
                bounds[x] = np.sqrt(exact)
                depth[i], deepest[i] = max(depth[i], exact), max(deepest[i], bounds[x])
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
def _classes_near(truth: np.ndarray, radius: float) -> np.ndarray:
    """For each block of the image the classes (bit: class modulo 64) that may be within `radius` of one of its pixels, uint64."""
    height, width = truth.shape
    rows, columns = (height + BLOCK - 1) // BLOCK, (width + BLOCK - 1) // BLOCK
    own = np.zeros((rows, columns), np.uint64)
    for y in range(height):
        last = -1
        for x in range(width):
            # Most neighbours are alike; each block is told of its first pixel and of every change.
            if truth[y, x] != last or x % BLOCK == 0:
                last = truth[y, x]
                own[y // BLOCK, x // BLOCK] |= np.uint64(1) << np.uint64(last % 64)
    reach = int(radius) // BLOCK + 1
    wide = np.zeros_like(own)
    for y in range(rows):
        for x in range(columns):
            for k in range(max(0, x - reach), min(columns, x + reach + 1)):
                wide[y, x] |= own[y, k]
    result = np.zeros_like(own)
    for y in range(rows):
        for k in range(max(0, y - reach), min(rows, y + reach + 1)):
            for x in range(columns):
                result[y, x] |= wide[k, x]
    return result


@njit(cache=True, nogil=True)
def _halves(radius: float) -> np.ndarray:
    """int32: half the width of a disc at each distance 0, 1, ... from its middle row; -1 ends it."""
    halves = np.full(int(radius) + 2, -1, np.int32)
    for step in range(int(radius) + 1):
        halves[step] = int(np.sqrt(radius * radius - step * step))
    return halves


@njit(cache=True, nogil=True)
def _nearby(truth: np.ndarray, y: int, x: int, wanted: int, halves: np.ndarray, not_above: bool, not_left: bool) -> tuple[int, int]:
    """The position of a pixel of class `wanted` in the disc around (y, x), or (-1, -1).

    `not_above`, `not_left`: there is none in the disc around the pixel above, or to the left, so what that covers is left out.
    """
    height, width = truth.shape
    for step in range(len(halves) - 1):
        half = halves[step]
        for sign in (-1, 1):
            row = y + sign * step
            if row < 0 or row >= height:
                continue
            # Above the middle, the disc of the pixel above covers all of a row; below it, what the next row is shorter by is new.
            inner = halves[step + 1] if sign > 0 or step == 0 else half
            if not_left:
                if x + half < width and truth[row, x + half] == wanted and not (not_above and inner >= half):
                    return row, x + half
            elif not_above:
                for column in range(max(0, x - half), min(width, x - inner)):
                    if truth[row, column] == wanted:
                        return row, column
                for column in range(max(0, x + inner + 1), min(width, x + half + 1)):
                    if truth[row, column] == wanted:
                        return row, column
            else:
                for column in range(max(0, x - half), min(width, x + half + 1)):
                    if truth[row, column] == wanted:
                        return row, column
    return -1, -1
