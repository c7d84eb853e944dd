"""A Gaussian filter over points in a few dimensions, in time linear in the points: the permutohedral lattice.

Adams, Baek and Davis, "Fast High-Dimensional Filtering Using the Permutohedral Lattice", Eurographics 2010. Each point hands its
values to the d + 1 corners of its lattice simplex, the corners are blurred with (1, 2, 1) / 4 along the d + 1 directions of the
lattice, and each point reads its corners again. Written from the paper's structure, with one addition: where points are sparse,
the blur would lose what it should carry over a corner that no point has touched, so corners between two touched ones are made too.
"""

import numpy as np
from numba import njit

CHANNELS = 8
"""Channels that are filtered together: they fill a vector register, and fewer corners' values are held at a time."""


class Lattice:
    """A lattice built for `features` float (N, d), which are positions in units of the Gaussian's standard deviation."""

    def __init__(self, features: np.ndarray) -> None:
        keys, table, count, self._corners, self._shares = _place(np.ascontiguousarray(features, dtype=np.float64))
        keys, table, self.size = _bridge(keys, table, count)
        self._neighbours = _find_neighbours(keys, table, self.size)

    def filter(self, values: np.ndarray) -> np.ndarray:
        """sum_j exp(-|f_i - f_j|^2 / 2) values_j, up to an unknown factor and the lattice's error; float32 (N, C) to the same.

        The sum includes the point itself. Divide by the result for ones to be rid of the factor.
        """
        assert values.dtype == np.float32 and values.ndim == 2 and len(values) == len(self._corners), values.shape
        values, result = np.ascontiguousarray(values), np.empty(values.shape, np.float32)
        for start in range(0, values.shape[1], CHANNELS):
            width = min(CHANNELS, values.shape[1] - start)
            # The last row stands for all corners that are not there, and stays 0.
            held, spare = (np.zeros((self.size + 1, width), np.float32) for _ in range(2))
            _filter(values, start, self._corners, self._shares, self._neighbours, held, spare, result)
        return result


@njit(cache=True, nogil=True)
def _place(features: np.ndarray) -> tuple[np.ndarray, np.ndarray, int, np.ndarray, np.ndarray]:
    """The corners of every point's simplex: their integer keys (rows of the first array) in a hash table, and per point their
    numbers and barycentric shares, (N, d + 1) each."""
    points, d = features.shape
    w = d + 1
    keys = np.empty((max(64, points // 4), d), np.int32)
    table = _hashed(keys, 0)
    count = 0
    corners = np.empty((points, w), np.int32)
    shares = np.empty((points, w), np.float32)
    # With this scale splat, blur and slice together have the variance 1.
    scale = np.array([w * np.sqrt(2 / 3) / np.sqrt((i + 1) * (i + 2)) for i in range(d)])
    at, rest = np.empty(w), np.empty(w)
    base, rank = np.empty(w, np.int64), np.empty(w, np.int64)
    share = np.empty(w + 1)
    key = np.empty(d, np.int32)
    for p in range(points):
        # The point on the hyperplane of d + 1 coordinates that sum to 0.
        total = 0.0
        for i in range(d, 0, -1):
            step = features[p, i - 1] * scale[i - 1]
            at[i] = total - i * step
            total += step
        at[0] = total
        # The nearest point whose coordinates are multiples of d + 1. Where they do not sum to 0, those that were rounded
        # furthest go the other way.
        excess = 0
        for i in range(w):
            base[i] = int(np.floor(at[i] / w + 0.5))
            excess += base[i]
            rest[i] = at[i] - w * base[i]
        for i in range(w):
            rank[i] = excess
            for j in range(w):
                rank[i] += rest[j] > rest[i] or (rest[j] == rest[i] and j < i)
        for i in range(w):
            if rank[i] < 0:
                rank[i] += w
                base[i] += 1
            elif rank[i] > d:
                rank[i] -= w
                base[i] -= 1
        # Sorted by rank, the differences of the rests are the barycentric coordinates.
        share[:] = 0
        for i in range(w):
            part = (at[i] - w * base[i]) / w
            share[d - rank[i]] += part
            share[d + 1 - rank[i]] -= part
        share[0] += 1 + share[w]
        for k in range(w):
            for i in range(d):
                key[i] = w * base[i] + (k if rank[i] <= d - k else k - w)
            if count == len(keys):
                keys, table = _grown(keys, count)
            slot = _slot(key, keys, table)
            if table[slot] < 0:
                keys[count] = key
                table[slot] = count
                count += 1
            corners[p, k] = table[slot]
            shares[p, k] = share[k]
    return keys, table, count, corners, shares


@njit(cache=True, nogil=True)
def _bridge(keys: np.ndarray, table: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Add the corners that no point touched and that have two touched neighbours or more."""
    d = keys.shape[1]
    touched = count
    size = 1
    while size < 16 * touched:
        size *= 2
    # How many touched neighbours a key has, at the place of its hash. Where keys meet there, a corner too many is made.
    seen = np.zeros(size, np.uint8)
    key = np.empty(d, np.int32)
    for corner in range(touched):
        for way in range(2 * d + 2):
            _step(keys[corner], way, key)
            place = _mixed(key) & (size - 1)
            seen[place] = min(seen[place] + 1, 2)
    for corner in range(touched):
        for way in range(2 * d + 2):
            _step(keys[corner], way, key)
            if seen[_mixed(key) & (size - 1)] < 2:
                continue
            if count == len(keys):
                keys, table = _grown(keys, count)
            slot = _slot(key, keys, table)
            if table[slot] < 0:
                keys[count] = key
                table[slot] = count
                count += 1
    return keys, table, count


@njit(cache=True, nogil=True)
def _find_neighbours(keys: np.ndarray, table: np.ndarray, count: int) -> np.ndarray:
    """Per direction and corner the two neighbours, int32 (d + 1, count, 2); `count` for one that is not there."""
    d = keys.shape[1]
    neighbours = np.full((d + 1, count, 2), count, np.int32)
    key = np.empty(d, np.int32)
    for corner in range(count):
        for direction in range(d + 1):
            _step(keys[corner], 2 * direction, key)
            found = table[_slot(key, keys, table)]
            if found >= 0:
                neighbours[direction, corner, 0] = found
                neighbours[direction, found, 1] = corner
    return neighbours


@njit(cache=True, nogil=True)
def _filter(
    values: np.ndarray,
    start: int,
    corners: np.ndarray,
    shares: np.ndarray,
    neighbours: np.ndarray,
    held: np.ndarray,
    spare: np.ndarray,
    result: np.ndarray,
) -> None:
    points, w = corners.shape
    channels = held.shape[1]
    half, quarter = np.float32(0.5), np.float32(0.25)
    for p in range(points):
        for k in range(w):
            corner, share = corners[p, k], shares[p, k]
            for c in range(channels):
                held[corner, c] += share * values[p, start + c]
    for direction in range(w):
        for corner in range(neighbours.shape[1]):
            one, other = neighbours[direction, corner, 0], neighbours[direction, corner, 1]
            for c in range(channels):
                spare[corner, c] = half * held[corner, c] + quarter * (held[one, c] + held[other, c])
        held, spare = spare, held
    for p in range(points):
        for c in range(channels):
            result[p, start + c] = 0
        for k in range(w):
            corner, share = corners[p, k], shares[p, k]
            for c in range(channels):
                result[p, start + c] += share * held[corner, c]


@njit(cache=True, nogil=True)
def _step(key: np.ndarray, way: int, out: np.ndarray) -> None:
    """The neighbour of a corner one step along direction way // 2, forward or back. A key lacks the last coordinate."""
    d = len(key)
    sign = 1 - 2 * (way % 2)
    for i in range(d):
        out[i] = key[i] + sign * (d if i == way // 2 else -1)


@njit(cache=True, nogil=True)
def _mixed(key: np.ndarray) -> int:
    """A key's hash, 0 or more."""
    mixed = np.int64(0)
    for i in range(len(key)):
        mixed = (mixed ^ np.int64(key[i])) * np.int64(6364136223846793005)
    return int((mixed >> 32) & 0x7FFFFFFF)


@njit(cache=True, nogil=True)
def _slot(key: np.ndarray, keys: np.ndarray, table: np.ndarray) -> int:
    """Where `key` stands in the hash table, or the free place where it belongs."""
    last = len(table) - 1
    slot = _mixed(key) & last
    while table[slot] >= 0:
        same = True
        for i in range(len(key)):
            same &= keys[table[slot], i] == key[i]
        if same:
            break
        slot = (slot + 1) & last
    return slot


@njit(cache=True, nogil=True)
def _hashed(keys: np.ndarray, count: int) -> np.ndarray:
    """A hash table of the first `count` rows of `keys`, with room for all of them at least twice."""
    size = 1
    while size < 2 * len(keys):
        size *= 2
    table = np.full(size, -1, np.int32)
    for corner in range(count):
        table[_slot(keys[corner], keys, table)] = corner
    return table


@njit(cache=True, nogil=True)
def _grown(keys: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    wider = np.empty((2 * len(keys), keys.shape[1]), np.int32)
    wider[:count] = keys[:count]
    return wider, _hashed(wider, count)
