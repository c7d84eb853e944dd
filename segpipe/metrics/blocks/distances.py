"""Exact Euclidean distances from pixels to the nearest pixel of a set.

A distance transform computes them for every pixel of the box, and contours need them for the few on a border. So only its first
half is done everywhere, the distance along the column, which is cheap; its second half, along the row, is a walk from the pixel
outwards that ends as soon as nothing further away can be nearer. Contours mostly run close together, and walks are short.
"""

import numpy as np
from numba import njit

STEPS = 8
"""Steps of all walks per pixel of the box from which on a whole distance transform is cheaper."""


def to_nearest(pixels: np.ndarray, others: np.ndarray, *, spacing: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """The distance of each of `pixels` to the nearest of `others`, in the order of rows and columns.

    Args:
        pixels: bool (h, w), of which distances are wanted.
        others: bool (h, w), at least one is set.
        spacing: distance of neighbouring pixels along rows and along columns.

    Returns:
        float64 (n,) for the n pixels that are set, in the unit of `spacing`.
    """
    assert others.any(), "there is no pixel to measure the distance to"
    # Squares of whole numbers are exact, so one spacing for both directions is a factor at the end.
    gaps, unit = ((1.0, 1.0), spacing[0]) if spacing[0] == spacing[1] else (spacing, 1.0)
    squares = np.empty(np.count_nonzero(pixels))
    masks = [np.ascontiguousarray(mask).view(np.uint8) for mask in (pixels, others)]
    if _walk(masks[0], masks[1], gaps[0], gaps[1], STEPS * pixels.size, squares):
        return np.asarray(np.sqrt(squares) * unit)
    from scipy.ndimage import distance_transform_edt  # here, as it is rarely needed and its import takes a while

    return np.asarray(distance_transform_edt(~others, sampling=gaps)[pixels] * unit, np.float64)


@njit(cache=True, nogil=True)
def _walk(pixels: np.ndarray, others: np.ndarray, row_gap: float, column_gap: float, budget: int, squares: np.ndarray) -> bool:
    """Write the squared distances of `pixels` uint8 (h, w) into `squares`; False if that took more than `budget` steps."""
    height, width = others.shape
    far = np.int32(height + width)
    along = np.empty((height, width), np.int32)  # pixels to the nearest of `others` in the same column; far if there is none
    above = np.full(width, far, np.int32)
    for row in range(height):
        for column in range(width):
            above[column] = min(above[column] + 1, far) * (1 - np.int32(others[row, column]))
            along[row, column] = above[column]
    for row in range(height - 2, -1, -1):
        for column in range(width):
            along[row, column] = min(along[row, column], along[row + 1, column] + 1)
    number = 0
    for row in range(height):
        for column in range(width):
            if not pixels[row, column]:
                continue
            nearest = np.inf
            for step in range(width):
                across = (step * column_gap) ** 2
                if across >= nearest:
                    break
                for place in (column - step, column + step):
                    if 0 <= place < width and along[row, place] < far:
                        nearest = min(nearest, across + (along[row, place] * row_gap) ** 2)
                budget -= 1
            if budget < 0:
                return False
            squares[number] = nearest
            number += 1
    return True
