"""What a pair of maps says about one error region: where its positive evidence lies, and how much the two maps agree.

"Energy" is the positive part of a map laid over the image (bilinear), so shares of it are between 0 and 1; a map without any has
the status "no positive evidence" and no shares. A share means something only beside the share of the image's area that the
same place has.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from segpipe.failures.grid import Axis, spread

EVIDENCE, FAINT, NO_EVIDENCE = "positive evidence", "next to no positive evidence", "no positive evidence"
FAINT_BELOW = 0.02
"""A map whose highest value is below this share of the other one's is faint: on their common scale it shows nothing."""
BORDER = 0.05
"""The border is the outermost 5 % of the shorter side."""
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

    `near` is the region and one layer cell around it: a map cannot be sharper than that.
    """

    region: np.ndarray
    segment: np.ndarray
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

    def _places(self) -> dict[str, np.ndarray]:
        return {"inside": self.region, "near": self.near, "segment": self.segment, "border": self.border}


def scene(
    region: np.ndarray,
    *,
    segment: np.ndarray,
    target: np.ndarray,
    window: tuple[slice, slice],
    cell: tuple[float, float],
) -> Scene:
    """The places of one region; `cell` is the (height, width) of a layer's cell in pixels of the image."""
    height, width = region.shape
    reach = [min(int(np.ceil(side)), limit) for side, limit in zip(cell, region.shape, strict=True)]
    kernel = np.ones((2 * reach[0] + 1, 2 * reach[1] + 1), np.uint8)
    band = max(1, round(BORDER * min(height, width)))
    border = np.ones((height, width), bool)
    border[band : height - band, band : width - band] = False
    shown = np.zeros((height, width), bool)
    shown[window] = True
    near = cv2.dilate(region.astype(np.uint8), kernel).astype(bool)
    return Scene(region=region, segment=segment, near=near, border=border, target=target, window=shown)


def lay_over(raw: np.ndarray, *, rows: Axis, columns: Axis, window: np.ndarray) -> np.ndarray:
    """The energy (H, W) of a raw map (h, w): its positive part, bilinear, 0 outside `window` bool (H, W)."""
    size = (window.shape[0], window.shape[1])
    energy: np.ndarray = spread(np.maximum(raw, 0), rows=rows, columns=columns, size=size) * window
    return energy


def measure(
    true: np.ndarray, predicted: np.ndarray, *, place: Scene, rows: Axis, columns: Axis, num_classes: int
) -> dict[str, float | int | str]:
    """Measure a pair of raw maps (h, w) of one kind.

    Returns:
        For each map `<map>_<place>` the energy shares and `<map>_status`; `cosine` and `spearman` of the two raw maps; and
        `context_class` (-1 for none) with `context_share` and `context_area`: of what lies outside `near`, the ground truth's class
        that holds most more of the predicted map's energy than of the area, and its shares of the two.
    """
    found: dict[str, float | int | str] = {}
    highest = max(float(true.max()), float(predicted.max()))
    for name, raw in (("true", true), ("predicted", predicted)):
        energy = lay_over(raw, rows=rows, columns=columns, window=place.window)
        found |= {f"{name}_{where}": share for where, share in place.shares(energy).items()}
        faint = float(raw.max()) < FAINT_BELOW * highest
        found[f"{name}_status"] = NO_EVIDENCE if not energy.max() > 0 else FAINT if faint else EVIDENCE
    found |= _context(energy, place=place, num_classes=num_classes)
    found["cosine"] = _cosine(true.ravel(), predicted.ravel())
    found["spearman"] = _correlation(_ranks(true), _ranks(predicted))
    return found


def _context(energy: np.ndarray, *, place: Scene, num_classes: int) -> dict[str, float | int | str]:
    outside = ~place.near & place.window & (place.target < num_classes)
    labels = place.target[outside].astype(np.int64)
    total = float(energy[outside].sum())
    if not total > 0:
        return {"context_class": -1, "context_share": float("nan"), "context_area": float("nan")}
    share = np.bincount(labels, weights=energy[outside], minlength=num_classes) / total
    area = np.bincount(labels, minlength=num_classes) / len(labels)
    best = int((share - area).argmax())
    return {"context_class": best, "context_share": float(share[best]), "context_area": float(area[best])}


def reading(measures: Mapping[str, float | int | str]) -> str:
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
