"""Connected groups of equal numbers, all at once: one pass over the image, whatever the number of classes or class pairs."""

import numpy as np
from numba import njit


def connected(code: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the 8-connected groups of equal non-zero codes.

    Args:
        code: integers (H, W) below 2^31, 0 for background.

    Returns:
        int32 (H, W) labels 1..n in scan order of their first pixels (0 where `code` is 0), and n.
    """
    assert code.ndim == 2, code.shape
    assert code.dtype.itemsize <= 2 or code.dtype == np.int32 or code.max(initial=0) < 2**31, "codes above 2^31"
    labels = np.empty(code.shape, np.int32)
    count = _connected(np.ascontiguousarray(code, dtype=np.int32), labels)
    return labels, int(count)


@njit(cache=True, nogil=True)
def root(parent: np.ndarray, i: int) -> int:
    """The root of `i` in a forest of parents int32 (n,); the way to it becomes shorter."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@njit(cache=True, nogil=True)
def join(parent: np.ndarray, i: int, j: int) -> int:
    """Join two trees of a forest under the smaller of their roots, which is returned."""
    i, j = root(parent, i), root(parent, j)
    low, high = min(i, j), max(i, j)
    parent[high] = low
    return low


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
            # Neighbours that touch each other are joined already: the one above touches the other three, and of those
            # only the upper right one is out of reach of the other two (Wu, Otoo and Suzuki 2009).
            if y > 0 and code[y - 1, x] == c:
                labels[y, x] = labels[y - 1, x]
                continue
            label, other = 0, 0
            if y > 0 and x + 1 < width and code[y - 1, x + 1] == c:
                label = labels[y - 1, x + 1]
            if x > 0 and code[y, x - 1] == c:
                other = labels[y, x - 1]
            elif y > 0 and x > 0 and code[y - 1, x - 1] == c:
                other = labels[y - 1, x - 1]
            if label == 0 and other == 0:
                last += 1
                parent[last] = last
                label = last
            elif label == 0:
                label = other
            elif other != 0 and other != label:
                label = join(parent, label, other)
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
