"""What a pair of maps says about one region: where its positive evidence lies, and how much the two maps agree.

"Energy" is the positive part of a map laid over the image (bilinear), so shares of it are between 0 and 1; a map without any has
the status "no positive evidence" and no shares. A share means something only beside the share of the image's area that the
same place has, and beside the same share on regions that the network gets right (`controls.py`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from segpipe.failures.grid import Axis, spread

MAPS = ("true", "predicted", "margin")
"""The map of the true class, of the predicted class, and of the difference of their logits (predicted less true)."""
PLACES = ("inside", "near", "segment", "guess", "border")
EVIDENCE, FAINT, NO_EVIDENCE = "positive evidence", "next to no positive evidence", "no positive evidence"
FAINT_BELOW = 0.02
"""A map whose highest value is below this share of the pair's highest is faint: on their common scale it shows nothing."""
ROUNDING = 1e-5
"""Positive values below this share of the pair's greatest absolute value may be rounding: they are no evidence."""
BORDER = 0.05
"""The border is the outermost 5 % of the shorter side."""
TOP = 0.1
"""Two maps are compared by where the highest 10 % of their cells are."""
MOSTLY = 0.5
LIFT = 1.5
"""A class of the surroundings that holds this many times more of the energy than of the area draws attention."""
ALIKE = 0.8
READINGS = {
    "no evidence": "nothing, or next to nothing, speaks for the true class",
    "context": "what speaks for the predicted class lies mostly outside the region",
    "look-alike": "both classes find their evidence on the region, in the same places",
    "parts": "both classes find their evidence on the region, in different places",
    "true class elsewhere": "the predicted class finds its evidence on the region, the true class does not",
    "undecided": "there is evidence for the true class and next to none for the predicted one: the layer does not show why",
}


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The places that energy is looked up in, all bool (H, W) except `target` (labels).

    `near` is the region and one layer cell around it: a map cannot be sharper than that. `segment` is the rest of the true
    class's segment that holds the region, `guess` the rest of the predicted segment that holds it.
    """

    region: np.ndarray
    segment: np.ndarray
    guess: np.ndarray
    near: np.ndarray
    border: np.ndarray
    target: np.ndarray
    window: np.ndarray
    """Pixels that the network was shown."""

    def areas(self) -> dict[str, float]:
        """The share of the shown pixels in each place."""
        shown = self.window.sum()
        return {name: float((place & self.window).sum() / shown) for name, place in self._places().items()}

    def shares(self, energy: np.ndarray) -> dict[str, float]:
        """The share of `energy` (H, W) >= 0 in each place; NaN where there is none."""
        total = float(energy.sum())
        return {name: float(energy[place].sum() / total) if total > 0 else float("nan") for name, place in self._places().items()}

    def classes(self, energy: np.ndarray, *, num_classes: int) -> np.ndarray:
        """float32 (K,): the share of `energy` (H, W) on each class's pixels of the ground truth that are not `near`, all NaN
        where there is none. What is missing to 1 is near the region, or has no label."""
        total = float(energy.sum())
        if not total > 0:
            return np.full(num_classes, np.nan, np.float32)
        sums = np.bincount(self._away, weights=energy.ravel(), minlength=num_classes + 1)[1 : num_classes + 1]
        return (sums / total).astype(np.float32)

    @cached_property
    def _away(self) -> np.ndarray:
        """intp (H * W,): 1 + the class of each pixel away from the region, 0 for those near it and those not shown."""
        away = ~self.near & self.window
        return np.where(away, self.target.astype(np.intp) + 1, 0).ravel()

    def _places(self) -> dict[str, np.ndarray]:
        return dict(zip(PLACES, (self.region, self.near, self.segment, self.guess, self.border), strict=True))


def scene(
    region: np.ndarray,
    *,
    segment: np.ndarray,
    target: np.ndarray,
    window: tuple[slice, slice],
    cell: tuple[float, float],
    guess: np.ndarray | None = None,
) -> Scene:
    """The places of one region.

    Args:
        region: bool (H, W).
        segment, guess: bool (H, W), the segment of the ground truth and of the prediction that holds the region.
        cell: the (height, width) of a layer's cell in pixels of the image.
    """
    height, width = region.shape
    reach = [min(int(np.ceil(side)), limit) for side, limit in zip(cell, region.shape, strict=True)]
    kernel = np.ones((2 * reach[0] + 1, 2 * reach[1] + 1), np.uint8)
    band = max(1, round(BORDER * min(height, width)))
    border = np.ones((height, width), bool)
    border[band : height - band, band : width - band] = False
    shown = np.zeros((height, width), bool)
    shown[window] = True
    return Scene(
        region=region,
        segment=segment & ~region,
        guess=np.zeros_like(region) if guess is None else guess & ~region,
        near=cv2.dilate(region.astype(np.uint8), kernel).astype(bool),
        border=border,
        target=target,
        window=shown,
    )


def lay_over(raw: np.ndarray, *, rows: Axis, columns: Axis, window: np.ndarray) -> np.ndarray:
    """The energy (H, W) of a raw map (h, w): its positive part, bilinear, 0 outside `window` bool (H, W)."""
    size = (window.shape[0], window.shape[1])
    energy: np.ndarray = spread(np.maximum(raw, 0), rows=rows, columns=columns, size=size) * window
    return energy


def measure(
    true: np.ndarray, predicted: np.ndarray, *, place: Scene, rows: Axis, columns: Axis, num_classes: int
) -> dict[str, Any]:
    """Measure a pair of raw maps (h, w) of one kind, and their difference.

    Returns:
        For each of MAPS:
        - `<map>_<place>`: the share of its energy in each of PLACES; `<map>_classes`: `Scene.classes`.
        - `<map>_status`: EVIDENCE, FAINT or NO_EVIDENCE.
        - `<map>_distance`: from the energy's centroid to the region's, as a share of the image's diagonal.
        - `<map>_entropy`: of the energy over the cells in the image, 0 (all in one cell) to 1 (the same in all).

        For the pair: `cosine` and `spearman` (rank correlation) of the raw maps; `overlap`, the IoU of the highest 10 % of their
        cells, positive ones only; `shift`, the distance of their energies' centroids as a share of the diagonal; and
        `context_class` (-1 for none) with `context_share` and `context_area`: of what lies outside `near`, the ground truth's
        class that holds most more of the predicted map's energy than of the area, and its shares of the two.

        What is undefined without energy is NaN.
    """
    found: dict[str, Any] = {}
    highest = max(float(true.max()), float(predicted.max()))
    rounding = ROUNDING * max(float(np.abs(true).max()), float(np.abs(predicted).max()))
    inside = _cells_in_image(place.window, rows, columns)
    middle = _centroid(place.region.astype(np.float64))
    diagonal = float(np.hypot(*place.region.shape))
    centroids: dict[str, np.ndarray] = {}
    tops: dict[str, np.ndarray] = {}
    for name, raw in zip(MAPS, (true, predicted, predicted - true), strict=True):
        positive = np.where(raw > rounding, raw, 0).astype(np.float64)
        energy = lay_over(positive, rows=rows, columns=columns, window=place.window)
        found |= {f"{name}_{where}": share for where, share in place.shares(energy).items()}
        found[f"{name}_classes"] = place.classes(energy, num_classes=num_classes)
        faint = float(raw.max()) < FAINT_BELOW * highest
        found[f"{name}_status"] = NO_EVIDENCE if not energy.max() > 0 else FAINT if faint else EVIDENCE
        centroids[name] = _centroid(energy)
        found[f"{name}_distance"] = float(np.hypot(*(centroids[name] - middle))) / diagonal
        found[f"{name}_entropy"] = _entropy(positive[inside])
        tops[name] = _top(positive[inside])
    found |= _context(found["predicted_classes"], place=place, num_classes=num_classes)
    found["cosine"] = _cosine(true.ravel(), predicted.ravel())
    found["spearman"] = rank_correlation(true, predicted)
    either = int((tops["true"] | tops["predicted"]).sum())
    both = tops["true"].any() and tops["predicted"].any()
    found["overlap"] = float((tops["true"] & tops["predicted"]).sum() / either) if both else float("nan")
    found["shift"] = float(np.hypot(*(centroids["true"] - centroids["predicted"]))) / diagonal
    return found


def _context(energy: np.ndarray, *, place: Scene, num_classes: int) -> dict[str, float | int]:
    total = float(energy.sum())
    if not total > 0:
        return {"context_class": -1, "context_share": float("nan"), "context_area": float("nan")}
    share = energy.astype(np.float64) / total
    area = place.classes(place.window.astype(np.float64), num_classes=num_classes).astype(np.float64)
    area /= area.sum()
    best = int((share - area).argmax())
    return {"context_class": best, "context_share": float(share[best]), "context_area": float(area[best])}


def reading(measures: Mapping[str, Any]) -> str:
    """One of READINGS: a first interpretation of a pair of local (HiResCAM) maps. A hypothesis, not a finding."""
    if measures["true_status"] != EVIDENCE:
        return "no evidence"
    if measures["predicted_status"] != EVIDENCE:
        return "undecided"
    if float(measures["predicted_near"]) < MOSTLY:
        return "context"
    if float(measures["true_near"]) < MOSTLY:
        return "true class elsewhere"
    return "look-alike" if float(measures["cosine"]) >= ALIKE else "parts"


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two arrays of one size, ties sharing their mean rank; NaN if either is constant."""
    return _correlation(_ranks(a), _ranks(b))


def _cells_in_image(window: np.ndarray, rows: Axis, columns: Axis) -> np.ndarray:
    """bool (h, w): cells whose middle lies in the part of the image that was shown; the others hold its mirrored border."""
    spans = []
    for axis, shown in ((rows, window.any(axis=1)), (columns, window.any(axis=0))):
        span = np.flatnonzero(shown)
        centres = axis.centres()
        spans.append((centres >= span[0]) & (centres < span[-1] + 1))
    cells: np.ndarray = spans[0][:, None] & spans[1]
    return cells


def _centroid(energy: np.ndarray) -> np.ndarray:
    """float64 (2,): the row and column of the centre of mass of (H, W) values >= 0; NaN where all are 0."""
    total = float(energy.sum())
    if not total > 0:
        return np.full(2, np.nan)
    sums = (energy.sum(axis=1), energy.sum(axis=0))
    return np.array([float(s @ np.arange(len(s))) / total for s in sums])


def _entropy(positive: np.ndarray) -> float:
    total = float(positive.sum())
    if not total > 0 or positive.size < 2:
        return float("nan")
    share = positive[positive > 0] / total
    return max(0.0, float(-(share * np.log(share)).sum() / np.log(positive.size)))


def _top(positive: np.ndarray) -> np.ndarray:
    """bool, the shape of `positive`: its highest TOP of cells (all that equal the last of them too), of those above 0."""
    if not positive.size:
        return positive > 0
    count = max(1, round(TOP * positive.size))
    least = np.partition(positive.ravel(), positive.size - count)[positive.size - count]
    top: np.ndarray = (positive >= least) & (positive > 0)
    return top


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    norm = float(np.linalg.norm(a.astype(np.float64)) * np.linalg.norm(b.astype(np.float64)))
    return float(a.astype(np.float64) @ b.astype(np.float64)) / norm if norm > 0 else float("nan")


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of all values, ties sharing their mean rank."""
    _, inverse, counts = np.unique(values.ravel(), return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return _cosine((a - a.mean()).ravel(), (b - b.mean()).ravel())
