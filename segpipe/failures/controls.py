"""Matched correct regions: for each error region a place of the same class, size and shape where the network is right.

A map's measures depend on more than right or wrong: energy inside a region grows with its area, a thin strip holds less than a
disc, classes look different, and images do. So an error is compared with a control that differs in nothing else that can be
helped (matching, as in a case-control study):

- class: the control lies on pixels of the error's true class that are predicted right;
- classes asked about: the error's own pair, so that the control's maps are of the same two logits;
- image: the error's own, or another one only where the class is hardly right anywhere in it. One forward pass then serves both;
- area and shape: the error's outline moved to another place. Where it fits nowhere, a patch of the same area is grown from a
  random pixel inside the correct pixels of the class;
- setting: of up to `DRAWS` such places, drawn evenly, the one that lies most alike: as far from the class's edge and from the
  image's border. Errors crowd along both, and a map's energy there is not their doing.

Where the class is right nowhere, an error has no control and stays out of the comparison.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import pandas as pd

from segpipe.failures.context import Context
from segpipe.failures.labelling import connected
from segpipe.failures.regions import error_regions

FITS = 0.95
"""A place fits where this share of the outline's pixels are right; the others are left out of the control."""
SMALLEST = 0.5
"""A control has at least this share of its error's area."""
DRAWS = 32
GROWN = 4
"""Patches grown where the outline fits nowhere."""
OTHER_IMAGES = 3
"""Further images that are searched for a control."""


@dataclass(frozen=True, kw_only=True)
class Control:
    """The correct region that is matched to one error, in image `id` of `size` (H, W).

    `matched` is the error's index in the table of regions; `true` is the class of all its pixels, in truth and prediction, and
    `predicted` the one that the error was mistaken for. `mask` bool (h, w) starts at row `top` and column `left`.
    """

    matched: int
    id: str
    true: int
    predicted: int
    top: int
    left: int
    mask: np.ndarray
    size: tuple[int, int]

    @property
    def area(self) -> int:
        """Pixels."""
        return int(self.mask.sum())

    @property
    def region(self) -> np.ndarray:
        """bool (H, W)."""
        full = np.zeros(self.size, bool)
        full[self.top : self.top + self.mask.shape[0], self.left : self.left + self.mask.shape[1]] = self.mask
        return full


def find_controls(errors: pd.DataFrame, *, context: Context, correct: np.ndarray) -> list[Control]:
    """One control for each row of `errors` that has one, in their order; the same for the same `context.seed`.

    Args:
        errors: columns id, region, true, predicted, area; any index, which `Control.matched` refers to.
        correct: int64 (N, K), the correct pixels of each class on each image of the split.
    """
    found: dict[int, Control] = {}
    shown = list(dict.fromkeys(errors["id"].astype(str)))
    for name, rows in errors.groupby("id", sort=False):
        _, target, prediction = context.arrays(str(name))
        labels, _ = error_regions(
            target, prediction=prediction, num_classes=len(context.class_names), ignore_index=context.ignore_index
        )
        keys = zip(rows.index, rows["region"], rows["true"], rows["predicted"], strict=True)
        for index, number, true, predicted in keys:
            outline = outline_of(labels == number, target=target)
            rng = _generator(context.seed, str(name), int(number))
            for other in _images(str(name), int(true), outline.area, shown=shown, correct=correct, context=context, rng=rng):
                _, truth, guess = context.arrays(other)
                control = match(outline, target=truth, prediction=guess, true=int(true), rng=rng)
                if control is None:
                    continue
                box = _box(control)
                found[int(index)] = Control(
                    matched=int(index),
                    id=other,
                    true=int(true),
                    predicted=int(predicted),
                    top=box[0].start,
                    left=box[1].start,
                    mask=control[box].copy(),
                    size=(truth.shape[0], truth.shape[1]),
                )
                break
    return [found[int(index)] for index in errors.index if int(index) in found]


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a control is matched to: the error's `mask` bool (h, w), its `area`, and its `setting` float64 (2,), the mean
    log2(1 + distance in pixels) of its pixels to the edge of their class and to the image's border."""

    mask: np.ndarray
    area: int
    setting: np.ndarray


def outline_of(region: np.ndarray, *, target: np.ndarray) -> Outline:
    """The outline of an error region bool (H, W), all of whose pixels have one class in `target` (H, W)."""
    box = _box(region)
    true = target == target[np.unravel_index(int(region.argmax()), region.shape)]
    setting = np.array([values[region].mean() for values in _settings(true)])
    return Outline(mask=region[box].copy(), area=int(region.sum()), setting=setting)


def match(
    outline: Outline, *, target: np.ndarray, prediction: np.ndarray, true: int, rng: np.random.Generator
) -> np.ndarray | None:
    """A control bool (H, W) for `outline` among the correct pixels of class `true` in labels (H, W); None if there is none."""
    right = (target == true) & (prediction == true)
    if right.sum() < SMALLEST * outline.area:
        return None
    candidates = list(_moved(outline, right, rng)) or list(_grown(outline, right, rng))
    if not candidates:
        return None
    settings = _settings(target == true)
    differences = []
    for box, mask in candidates:
        setting = np.array([values[box][mask].mean() for values in settings])
        differences.append(float(np.abs(setting - outline.setting).sum()))
    box, mask = candidates[int(np.argmin(differences))]
    control = np.zeros(right.shape, bool)
    control[box] = mask
    return control


Candidate = tuple[tuple[slice, slice], np.ndarray]
"""A box of the image, and the pixels in it, bool."""


def _moved(outline: Outline, right: np.ndarray, rng: np.random.Generator) -> Iterator[Candidate]:
    """Up to DRAWS places of `right` where the outline fits, drawn evenly from all of them."""
    height, width = outline.mask.shape
    if height > right.shape[0] or width > right.shape[1]:
        return
    # The correct pixels under the outline at every place, by Fourier transform: exact but for rounding.
    under = cv2.matchTemplate(right.astype(np.float32), outline.mask.astype(np.float32), cv2.TM_CCORR)
    fits = np.flatnonzero(under >= FITS * outline.area - 0.01)
    for place in rng.permutation(len(fits))[:DRAWS]:
        top, left = np.unravel_index(fits[place], under.shape)
        box = (slice(int(top), int(top) + height), slice(int(left), int(left) + width))
        yield box, outline.mask & right[box]


def _grown(outline: Outline, right: np.ndarray, rng: np.random.Generator) -> Iterator[Candidate]:
    """Up to GROWN patches of the outline's area (or of all of a smaller segment) around random pixels of `right`."""
    segments, count = connected(right.astype(np.uint8))
    large = np.flatnonzero(np.bincount(segments.ravel(), minlength=count + 1)[1:] >= SMALLEST * outline.area) + 1
    seeds = np.flatnonzero(np.isin(segments, large))
    for seed in rng.permutation(len(seeds))[:GROWN]:
        row, column = np.unravel_index(seeds[seed], right.shape)
        segment = segments == segments[row, column]
        box = _box(segment)
        patch = _patch(segment[box], (int(row) - box[0].start, int(column) - box[1].start), outline.area)
        yield box, patch


def _patch(segment: np.ndarray, seed: tuple[int, int], area: int) -> np.ndarray:
    """The `area` pixels of a segment bool (h, w) nearest to `seed` on ways inside it (all of it if it has fewer)."""
    patch = np.zeros(segment.shape, np.uint8)
    patch[seed] = 1
    inside = segment.astype(np.uint8)
    size = 1
    # A cross and a square in turn grow an octagon, nearly a disc.
    kernels = [cv2.getStructuringElement(shape, (3, 3)) for shape in (cv2.MORPH_CROSS, cv2.MORPH_RECT)]
    step = 0
    while size < area:
        grown = cv2.dilate(patch, kernels[step % 2]) & inside
        total = int(grown.sum())
        # A cross may find no way where only corners touch.
        if total == size and step % 2:
            break
        if total > area:
            rows, columns = np.nonzero(grown & ~patch & 1)
            nearest = np.argsort((rows - seed[0]) ** 2 + (columns - seed[1]) ** 2, kind="stable")[: area - size]
            patch[rows[nearest], columns[nearest]] = 1
            break
        patch, size, step = grown, total, step + 1
    return patch.astype(bool)


def _images(
    name: str, true: int, area: int, *, shown: Sequence[str], correct: np.ndarray, context: Context, rng: np.random.Generator
) -> Iterator[str]:
    """The images to search: the error's own, then those that are shown to the network anyway, then others, each lot shuffled."""
    enough = [one for one, row in context.positions.items() if correct[row, true] >= SMALLEST * area and one != name]
    known = set(shown)
    lots = [[one for one in enough if one in known], [one for one in enough if one not in known]]
    others = [lot[i] for lot in lots for i in rng.permutation(len(lot))[:OTHER_IMAGES]]
    if correct[context.positions[name], true] >= SMALLEST * area:
        yield name
    yield from others[:OTHER_IMAGES]


def _settings(true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 (H, W), log2(1 + distance in pixels): to the edge of `true` bool (H, W), and to the image's border."""
    height, width = true.shape
    depth = np.minimum(cv2.distanceTransform(true.astype(np.uint8), cv2.DIST_L2, 5), np.float32(np.hypot(height, width)))
    down, across = (np.minimum(np.arange(side), np.arange(side)[::-1]) for side in (height, width))
    border = np.minimum(down[:, None], across).astype(np.float32)
    return np.log2(1 + depth), np.log2(1 + border)


def _box(mask: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _generator(seed: int, image: str, region: int) -> np.random.Generator:
    """Random numbers that depend on the arguments alone, not on which other regions are chosen."""
    digest = hashlib.sha256(f"control\0{seed}\0{image}\0{region}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))
