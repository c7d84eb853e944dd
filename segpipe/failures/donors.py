"""Other surroundings for an object: which image lends them, and how the object is put in.

The lender is another image of the split, in which the place of the object looks as the suspicion wants it: like the surroundings of
the objects that have the suspected cause, or like those that have it not. It holds the same classes as the object's own
surroundings, so that little else changes. The object keeps its
pixels and a thin rim of its own surroundings, feathered outwards.
"""

import math

import cv2
import numpy as np

from segpipe.failures.associations import Association
from segpipe.failures.attributes import FEATURES, GRID, Attributes

RIM = 2
"""Pixels around an object that move with it, at least; 0.3 % of the image's diagonal where that is more."""
BEST = 5
"""The lender is drawn from so many of the most fitting images."""
STRAY = 0.05
"""Share of the place that may hold objects of the two classes in question, beyond the object's own."""


def lenders(
    attributes: Attributes, units: np.ndarray, one: Association, *, image: int, boxes: np.ndarray, rng: np.random.Generator
) -> tuple[int, int] | None:
    """The images (rows of the split) that lend surroundings with and without the suspected cause to objects of `image`, or None.

    `boxes` (n, 4) are the objects' enlarged boxes as shares of height and width; `units` (N,) is the independent unit of each
    image: an image's own unit lends nothing, there the object itself may be seen again.
    """
    place = _cells(boxes)
    values = _values(attributes, one, place)
    if isinstance(one.cut, str):
        known, with_cause = np.array([isinstance(value, str) for value in values]), values == one.cut
        sides = (with_cause, ~with_cause & known)
    else:
        below = (values <= one.cut) == (one.side == "low")
        # On the wrong side of the cut or near it a lender says nothing about either side.
        nearer = np.abs(values - one.middle) < np.abs(values - one.middle_else)
        sides = (below & nearer, ~below & ~nearer & ~np.isnan(values))
    likeness, stray = _likeness(attributes, one, image, place)
    allowed = (units != units[image]) & (stray <= STRAY)
    chosen = []
    for side, inside in zip(sides, (one.inside, ~one.inside), strict=True):
        candidates = np.flatnonzero(side & allowed)
        if not len(candidates):
            return None
        score = likeness[candidates] - _strangeness(attributes, one.rows[inside], place)[candidates]
        order = np.argsort(-score, kind="stable")
        chosen.append(int(candidates[order[int(rng.integers(min(BEST, len(order))))]]))
    return chosen[0], chosen[1]


def paste(image: np.ndarray, mask: np.ndarray, lender: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3): the pixels of `image` in `mask` and its rim, and the lender's, resized to it, everywhere else."""
    height, width = mask.shape
    if lender.shape[:2] != mask.shape:
        lender = cv2.resize(lender, (width, height), interpolation=cv2.INTER_AREA)
    rim, solid = _rim(mask.shape), mask.astype(np.uint8)
    wide = cv2.dilate(solid, _disc(rim)).astype(np.float32)
    share = np.maximum(cv2.blur(wide, (rim + 1, rim + 1)), solid)[..., None]
    pasted: np.ndarray = np.rint(image * share + lender * (1 - share)).astype(np.uint8)
    return pasted


def fill(image: np.ndarray, hole: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3): `image` with the pixels of `hole` and its rim replaced by a blur of what surrounds them; those of `keep`
    and of its rim stay, and are not blurred into it."""
    rim = _disc(_rim(hole.shape))
    # What touches the object may lie over it: to take that away would show more of the object, which is another matter.
    keep = cv2.dilate(keep.astype(np.uint8), rim).astype(bool)
    hole = cv2.dilate(hole.astype(np.uint8), rim).astype(bool) & ~keep
    known = (~(hole | keep)).astype(np.float32)
    result = np.full(image.shape, image[known > 0].mean(axis=0) if known.any() else image.mean(axis=(0, 1)), np.float32)
    side = max(_half_width(hole), 8)
    # From coarse to fine: where the finer blur finds known pixels it takes the coarser one's place.
    for reach in (4 * side, 2 * side, side):
        kernel = (2 * reach + 1, 2 * reach + 1)
        weight = cv2.blur(known, kernel, borderType=cv2.BORDER_REFLECT)
        total = cv2.blur(image * known[..., None], kernel, borderType=cv2.BORDER_REFLECT)
        enough = weight > 0.05
        result[enough] = total[enough] / weight[enough][:, None]
    filled: np.ndarray = np.where(hole[..., None], np.clip(np.rint(result), 0, 255).astype(np.uint8), image)
    return filled


def _half_width(mask: np.ndarray) -> int:
    """About half the width, in pixels, of the widest part of a mask."""
    padded = np.pad(mask, 1).astype(np.uint8)
    return int(np.ceil(cv2.distanceTransform(padded, cv2.DIST_L2, 3).max()))


def _rim(shape: tuple[int, ...]) -> int:
    return max(RIM, round(0.003 * math.hypot(*shape)))


def _disc(radius: int) -> np.ndarray:
    disc: np.ndarray = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    return disc


def _cells(boxes: np.ndarray) -> np.ndarray:
    """bool (GRID, GRID): the cells that boxes (n, 4), as shares of height and width, touch."""
    place = np.zeros((GRID, GRID), bool)
    for top, left, bottom, right in boxes * GRID:
        rows = slice(int(top), max(int(np.ceil(bottom)), int(top) + 1))
        place[rows, int(left) : max(int(np.ceil(right)), int(left) + 1)] = True
    return place


def _values(attributes: Attributes, one: Association, place: np.ndarray) -> np.ndarray:
    """The suspected attribute of each image (N,): at the object's place, or of the whole image."""
    scope, _, what = one.attribute.partition("/")
    if what in FEATURES:
        grids = attributes.grids[..., FEATURES.index(what)].astype(np.float32)
        values: np.ndarray = grids[:, place].mean(axis=1) if scope == "around" else grids.mean(axis=(1, 2))
        return values
    first = attributes.segments.groupby("image")[one.attribute].first()
    return first.reindex(range(len(attributes.grids))).to_numpy()


def _strangeness(attributes: Attributes, rows: np.ndarray, place: np.ndarray) -> np.ndarray:
    """How far the place is in each image (N,) from the surroundings of these segments, in standard deviations of their features."""
    usual = attributes.segments[[f"around/{name}" for name in FEATURES]].to_numpy(np.float64)[rows]
    middle, spread = np.nanmedian(usual, axis=0), np.maximum(np.nanstd(usual, axis=0), 2.0)
    there = attributes.grids[:, place].astype(np.float64).mean(axis=1)
    distance: np.ndarray = np.sqrt((((there - middle) / spread) ** 2).mean(axis=1))
    return distance


def _likeness(attributes: Attributes, one: Association, image: int, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How alike (0..1) the classes at the place are to those that surround the objects of `image`, and the share of the place that
    holds the two classes in question; each (N,)."""
    there = attributes.classes[:, place]
    pair = [one.true] if one.predicted is None else [one.true, one.predicted]
    stray = np.isin(there, pair).mean(axis=1)
    own = there[image][~np.isin(there[image], pair)]
    likeness = np.zeros(len(there))
    for c, count in zip(*np.unique(own, return_counts=True), strict=True):
        likeness += np.minimum((there == c).mean(axis=1), count / len(own))
    return likeness, stray
