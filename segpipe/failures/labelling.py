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
    labels = np.array(code, np.int32, order="C")
    return labels, label(labels)


def label(codes: np.ndarray) -> int:
    """The same in place: codes int32 (H, W) become labels. Returns their number."""
    return int(_label(codes))


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
def _label(grid: np.ndarray) -> int:
    height, width = grid.shape
    parent = np.empty(height * width + 1, np.int32)
    parent[0] = 0
    last = 0
    # The codes of the row above and of this one, with a border of background: in the grid they have become labels.
    above, here = np.zeros(width + 2, np.int32), np.zeros(width + 2, np.int32)
    for y in range(height):
        for x in range(width):
            c = grid[y, x]
            here[x + 1] = c
            if c == 0:
                continue
            # Neighbours that touch each other are joined already: the one above touches the other three, and of those
            # only the upper right one is out of reach of the other two (Wu, Otoo and Suzuki 2009).
            if above[x + 1] == c:
                grid[y, x] = grid[y - 1, x]
                continue
            mine, other = 0, 0
            if above[x + 2] == c:
                mine = grid[y - 1, x + 1]
            if here[x] == c:
                other = grid[y, x - 1]
            elif above[x] == c:
                other = grid[y - 1, x - 1]
            if mine == 0 and other == 0:
                last += 1
                parent[last] = last
                mine = last
            elif mine == 0:
                mine = other
            elif other != 0 and other != mine:
                mine = join(parent, mine, other)
            grid[y, x] = mine
        above, here = here, above
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
            grid[y, x] = parent[grid[y, x]]
    return count
