"""Nearly equal images: a perceptual hash of each image, and the pairs of different splits whose hashes differ in few bits.

The hash is that of `imagehash.phash`: the signs, against their median, of the 64 lowest frequencies of a 32 x 32 grey picture.
"""

from itertools import combinations

import cv2
import numpy as np

SIDE, FREQUENCIES = 32, 8
COSINES = 2 * np.cos(np.pi / (2 * SIDE) * np.outer(np.arange(FREQUENCIES), 2 * np.arange(SIDE) + 1))
"""The cosine transform (type II) of SIDE values, its lowest frequencies only: (FREQUENCIES, SIDE)."""
STRUCTURE = 64.0
"""Below this median of the frequencies' strength the 8-bit rounding of the picture decides the bits (one grey level is 64)."""
DISTANCE = 6
"""Bits of 64 up to which two images count as nearly equal; distances are even, as half of the bits are ones.

Measured on original files, found at 4 / 6 / 8 bits: of 172 images saved as JPEG of quality 30 95 / 98 / 99 %, halved 100 % at
each, with a gamma of 0.7 95 / 99 / 100 %, cut by 2 % at two sides 74 / 90 / 97 %; of 34 frames of a CamVid drive that are 0.2 s
apart 15 / 27 / 33. False alarms at 8 bits: none in 11,175 pairs of COCO photographs (nearest 16), 3,828 of CrackForest (16),
820 of DSB 2018 (18), 276 of ISBI slices (10) and 45,056 pairs of frames of different CamVid drives (10). Pictures that all show one
thing framed alike do come near each other: of 21 pairs of eyes in DRIVE 0 / 2 / 6.
"""
CELLS = 2**19
"""Distances computed at once: few enough to stay in the processor's cache."""


def fingerprint(pixels: np.ndarray) -> int | None:
    """The 64-bit perceptual hash of an image uint8 (H, W, 3) RGB or (H, W) grey, the lowest frequency in the highest bit.

    Copies of other size, quality or brightness differ in few bits. None for an image without structure at this scale (one
    colour, a smooth ramp, fine noise): its bits would be those of any other such image.
    """
    assert pixels.dtype == np.uint8 and pixels.ndim in (2, 3), f"{pixels.dtype} {pixels.shape} is no 8-bit image"
    height, width = pixels.shape[:2]
    # In whole steps first, which cv2 does several times faster than a shrinking by an odd factor.
    step = max(1, min(height, width) // (4 * SIDE))
    if step > 1:
        whole = pixels[: height // step * step, : width // step * step]
        pixels = cv2.resize(whole, (width // step, height // step), interpolation=cv2.INTER_AREA)
    small = cv2.resize(pixels, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY) if small.ndim == 3 else small
    low = (COSINES @ grey @ COSINES.T).ravel()
    if np.median(np.abs(low[1:])) < STRUCTURE:
        return None
    return int.from_bytes(np.packbits(low > np.median(low)).tobytes(), "big")


def near_pairs(
    hashes: np.ndarray, valid: np.ndarray, splits: np.ndarray, *, distance: int = DISTANCE, limit: int = 1000
) -> tuple[list[tuple[int, int, int]], int]:
    """Samples of different splits whose hashes differ in at most `distance` bits: pairs (i, j, bits) with i < j, nearest first.

    Every sample is paired with its nearest one of another split only (the first, where several are as near), so that a long
    video gives one pair per frame. Of these pairs the `limit` nearest are returned, and with them how many samples have such a
    partner at all. Compares every pair of hashes and keeps a few megabytes: 120,000 against 5,000 take about half a second.

    Args:
        hashes: uint64 (N,).
        valid: bool (N,); samples without a hash take no part.
        splits: the split of each sample, strings or whole numbers (N,).
        distance: bits, 0..64.
        limit: the most pairs to return.
    """
    assert hashes.dtype == np.uint64 and hashes.shape == valid.shape == splits.shape, f"{hashes.dtype} {hashes.shape}"
    partner = np.zeros(len(hashes), np.int64)
    bits = np.full(len(hashes), 65, np.uint8)
    members = [np.flatnonzero(valid & (splits == split)) for split in np.unique(splits)]
    for pair in combinations(members, 2):
        few, many = sorted(pair, key=len)
        if not len(few):
            continue
        step = max(1, CELLS // len(few))
        for start in range(0, len(many), step):
            part = many[start : start + step]
            apart = np.bitwise_count(hashes[part, None] ^ hashes[few])
            if apart.min() <= distance:
                _keep_nearest(bits, partner, part, few, apart)
                _keep_nearest(bits, partner, few, part, apart.T)
    involved = np.flatnonzero(bits <= distance)
    found = zip(involved.tolist(), partner[involved].tolist(), bits[involved].tolist(), strict=True)
    pairs = sorted({(apart, min(i, j), max(i, j)) for i, j, apart in found})[:limit]
    return [(i, j, apart) for apart, i, j in pairs], len(involved)


def _keep_nearest(bits: np.ndarray, partner: np.ndarray, samples: np.ndarray, others: np.ndarray, apart: np.ndarray) -> None:
    """Enter the nearest of `others` for those of `samples` to which none was nearer so far; `apart` is uint8 (S, O)."""
    which = apart.argmin(axis=1)
    least = apart[np.arange(len(samples)), which]
    nearer = least < bits[samples]
    bits[samples[nearer]], partner[samples[nearer]] = least[nearer], others[which[nearer]]
