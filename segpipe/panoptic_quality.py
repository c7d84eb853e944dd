"""Panoptic quality: are the segments found, and how well do they fit? (Kirillov et al. 2019, arXiv 1801.00868.)

Every labelled pixel belongs to one segment: a thing's object, or all pixels of a stuff class. A predicted and a true segment of one
class match if their IoU is above .5, which at most one pair can be for each segment. PQ = sum of the matches' IoU / (TP + FP / 2 +
FN / 2), the product of segmentation quality (their mean IoU) and recognition quality (an F1 score).

The rules for what does not count are those of cocodataset/panopticapi: unlabelled pixels (void) are taken off the union; a
predicted segment that lies on void and on crowds of its class by more than half is no false positive; a crowd cannot be missed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

VOID = 0
"""The number of the segment that is none."""
TABLE = 2**22
"""Up to so many pairs of segments, an image's overlaps are counted in a table; above it, they are sorted."""


@dataclass(frozen=True, kw_only=True)
class Segments:
    """One image cut into segments.

    `numbers` int32 (H, W) holds 0 for void and 1..n; `categories` int (n,) the class index of segment i + 1; `crowds` bool (n,)
    whether it stands for several objects (never so in a prediction).
    """

    numbers: np.ndarray
    categories: np.ndarray
    crowds: np.ndarray


class PanopticQuality:
    """Matches of a split, image by image: `tp`, `fp`, `fn` int64 (K,) and the summed IoU of the matches float64 (K,)."""

    def __init__(self, class_names: Sequence[str], *, things: Sequence[bool]) -> None:
        assert len(class_names) == len(things), f"{len(class_names)} classes, {len(things)} flags"
        self._names, self._things = list(class_names), np.asarray(things, bool)
        self.tp, self.fp, self.fn = (np.zeros(len(class_names), np.int64) for _ in range(3))
        self.iou = np.zeros(len(class_names))

    def add(self, truth: Segments, predicted: Segments) -> None:
        """Match one image's segments.

        Raises:
            ValueError: the sizes differ.
        """
        if truth.numbers.shape != predicted.numbers.shape:
            raise ValueError(f"the prediction is {predicted.numbers.shape}, the truth {truth.numbers.shape}; they must be equal")
        pairs, overlap = _overlaps(truth.numbers, predicted.numbers, len(truth.categories) + 1, len(predicted.categories) + 1)
        true_area = np.bincount(pairs[0], weights=overlap, minlength=len(truth.categories) + 1)
        area = np.bincount(pairs[1], weights=overlap, minlength=len(predicted.categories) + 1)
        # Segment 0 is void on both sides; -1 is the class of none.
        true_class = np.concatenate([[-1], truth.categories]).astype(np.int64)
        predicted_class = np.concatenate([[-1], predicted.categories]).astype(np.int64)
        crowd = np.concatenate([[False], truth.crowds]).astype(bool)
        on_void = np.zeros(len(predicted_class))
        on_void[pairs[1][pairs[0] == VOID]] = overlap[pairs[0] == VOID]
        t, p = pairs[:, (pairs[0] != VOID) & (pairs[1] != VOID)]
        shared = overlap[(pairs[0] != VOID) & (pairs[1] != VOID)]
        same = true_class[t] == predicted_class[p]
        iou = shared / (true_area[t] + area[p] - shared - on_void[p])
        hit = same & ~crowd[t] & (iou > 0.5)
        ignored = on_void.copy()
        np.add.at(ignored, p[same & crowd[t]], shared[same & crowd[t]])
        missed, wrong = (true_area > 0) & ~crowd, (area > 0) & (ignored <= 0.5 * area)
        missed[VOID] = wrong[VOID] = missed[t[hit]] = wrong[p[hit]] = False
        classes = len(self._names)
        self.tp += np.bincount(true_class[t[hit]], minlength=classes)
        self.iou += np.bincount(true_class[t[hit]], weights=iou[hit], minlength=classes)
        self.fn += np.bincount(true_class[missed], minlength=classes)
        self.fp += np.bincount(predicted_class[wrong], minlength=classes)

    def document(self) -> dict[str, Any]:
        """For JSON: pq, sq, rq, classes (in the mean) over all; the same of `things` and `stuff`; `by_class` with tp, fp, fn.

        The three are shares, 0..1. A class without a true or a predicted segment is None and in no mean.
        """
        half = self.tp + 0.5 * (self.fp + self.fn)
        seen = half > 0
        pq, rq = (np.divide(part, half, out=np.zeros(len(half)), where=seen) for part in (self.iou, self.tp))
        sq = np.divide(self.iou, self.tp, out=np.zeros(len(half)), where=self.tp > 0)  # 0 without a match, as in panopticapi

        def means(of: np.ndarray) -> dict[str, Any]:
            chosen = seen & of
            count = int(chosen.sum())
            scores = {key: float(v[chosen].mean()) if count else None for key, v in (("pq", pq), ("sq", sq), ("rq", rq))}
            return {**scores, "classes": count}

        by_class: Mapping[str, Any] = {
            name: {
                "pq": float(pq[k]) if seen[k] else None,
                "sq": float(sq[k]) if seen[k] else None,
                "rq": float(rq[k]) if seen[k] else None,
                "tp": int(self.tp[k]),
                "fp": int(self.fp[k]),
                "fn": int(self.fn[k]),
                "thing": bool(self._things[k]),
            }
            for k, name in enumerate(self._names)
        }
        return {
            **means(np.ones(len(half), bool)),
            "things": means(self._things),
            "stuff": means(~self._things),
            "by_class": by_class,
        }


def _overlaps(truth: np.ndarray, predicted: np.ndarray, rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of segment numbers that share pixels, int64 (2, m), and how many, int64 (m,)."""
    code = truth.reshape(-1).astype(np.int64) * columns + predicted.reshape(-1)
    if rows * columns <= TABLE:
        counts = np.bincount(code, minlength=rows * columns)
        found = np.flatnonzero(counts)
        return np.stack(np.divmod(found, columns)), counts[found]
    found, counts = np.unique(code, return_counts=True)
    return np.stack(np.divmod(found, columns)), counts
