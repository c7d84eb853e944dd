"""Mask AP and panoptic quality of a network that only labels pixels, on datasets whose rows hold instances.

How it gets objects: every 8-connected component of a predicted thing class is one, its score the mean confidence inside. This is a
baseline. Objects of a class that touch come out as one, and an object cut in two by another comes out as two; both cost the
scores what they should. A network that predicts objects brings its own to `mask_ap.MaskAP` and `panoptic_quality.PanopticQuality`.

Ignored pixels belong to no predicted object. A component that lies on them by more than half, and is wrong on most of its other
pixels, is none: what would have been right there is unknown.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from segpipe.mask_ap import MOST, Detection, MaskAP
from segpipe.panoptic_quality import PanopticQuality, Segments
from segpipe.shards import ClassInfo


def has_things(classes: Sequence[ClassInfo]) -> bool:
    """Whether any class comes in countable objects; without one there is nothing to score here."""
    return any(c.thing for c in classes)


class InstanceScores:
    """Mask AP and panoptic quality of a split, added image by image; memory holds the masks as run lengths."""

    def __init__(self, classes: Sequence[ClassInfo], *, ignore_index: int) -> None:
        names = [c.name for c in classes]
        self._things = np.array([c.thing for c in classes], bool)
        self._ignore_index = ignore_index
        self._ap, self._best_ap = MaskAP(names), MaskAP(names)
        self._quality, self._best_quality = (PanopticQuality(names, things=self._things.tolist()) for _ in range(2))

    def add(self, instances: Sequence[Mapping[str, Any]], target: np.ndarray, labels: np.ndarray, confidence: np.ndarray) -> None:
        """Score one image.

        Args:
            instances: the image's instances as a shard's row holds them; those of stuff classes are left out.
            target: true labels uint8/uint16 (H, W).
            labels: predicted labels (H, W), class indices.
            confidence: of the predicted labels, uint8 (H, W) as in `predictions.arrow`, 255 times the probability.

        Raises:
            ValueError: the sizes differ.
        """
        if not target.shape == labels.shape == confidence.shape:
            raise ValueError(f"truth is {target.shape}, labels {labels.shape}, confidence {confidence.shape}; must be equal")
        rows = [row for row in instances if self._things[row["category"]]]
        truth = true_segments(rows, target, things=self._things, ignore_index=self._ignore_index)
        for seen, sure, ap, quality in (
            (labels, confidence, self._ap, self._quality),
            (target, np.full(target.shape, 255, np.uint8), self._best_ap, self._best_quality),
        ):
            numbers, categories = components(seen, things=self._things)
            found = detections(numbers, categories, sure, target=target, ignore_index=self._ignore_index)
            ap.add(rows, found, size=(target.shape[0], target.shape[1]))
            quality.add(truth, _with_stuff(numbers, categories, seen, things=self._things))

    def document(self) -> dict[str, Any] | None:
        """For JSON: {"ap": `MaskAP.document`, "pq": `PanopticQuality.document`, "ceiling"}; None without any countable object.

        `ceiling` holds ap, ap50, pq and things_pq of the true labels taken for a prediction, all with equal confidence: what
        components can reach on these images. The rest of the way to 1 is not the labels' fault.
        """
        if not self._ap.objects:
            return None
        ap, quality = self._best_ap.document(), self._best_quality.document()
        ceiling = {"ap": ap["ap"], "ap50": ap["ap50"], "pq": quality["pq"], "things_pq": quality["things"]["pq"]}
        return {"ap": self._ap.document(), "pq": self._quality.document(), "ceiling": ceiling}


def components(labels: np.ndarray, *, things: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 8-connected components of all thing classes: int32 (H, W) numbers 1..n, 0 elsewhere, and their classes int64 (n,).

    They are numbered class by class, in an order that the labels alone decide.
    """
    numbers = np.zeros(labels.shape, np.int32)
    categories: list[int] = []
    present = np.flatnonzero(np.bincount(labels.reshape(-1), minlength=len(things))[: len(things)])
    for category in present[things[present]]:
        # Only the class's bounding box is labelled: objects are mostly a small part of their image.
        inside = (labels == category).view(np.uint8)
        x, y, width, height = cv2.boundingRect(inside)
        box = np.s_[y : y + height, x : x + width]
        count, found = cv2.connectedComponents(inside[box], connectivity=8, ltype=cv2.CV_32S)
        np.copyto(numbers[box], found + len(categories), where=found > 0)
        categories += [int(category)] * (count - 1)
    return numbers, np.array(categories, np.int64)


def detections(
    numbers: np.ndarray, categories: np.ndarray, confidence: np.ndarray, *, target: np.ndarray, ignore_index: int
) -> list[Detection]:
    """Components as detections: their pixels that `target` does not ignore, and the mean confidence of these as score, 0..1.

    Of each class the `mask_ap.MOST` surest ones, as no more count. Arguments as `components` gives and `InstanceScores.add` takes
    them.
    """
    flat, labelled, length = numbers.reshape(-1), target.reshape(-1) != ignore_index, len(categories) + 1
    inside = flat[labelled]
    whole, area = np.bincount(flat, minlength=length), np.bincount(inside, minlength=length)
    of = np.concatenate([[ignore_index], categories])
    right = np.bincount(inside[of[inside] == target.reshape(-1)[labelled]], minlength=length)
    total = np.bincount(inside, weights=confidence.reshape(-1)[labelled], minlength=length)
    kept = np.flatnonzero((area > 0) & ((2 * area >= whole) | (2 * right >= area)))
    kept = _surest(kept[kept > 0], of, total / np.maximum(area, 1))
    masks = run_lengths(np.where(target == ignore_index, 0, numbers), kept)
    return [
        Detection(category=int(of[i]), score=float(total[i] / area[i] / 255), rle=rle) for i, rle in zip(kept, masks, strict=True)
    ]


def true_segments(rows: Sequence[Mapping[str, Any]], target: np.ndarray, *, things: np.ndarray, ignore_index: int) -> Segments:
    """The true segments of one image: an instance each, a stuff class each, and void where `target` is ignored.

    An instance has the class of its row, and the pixels of its mask that `target` gives to this class. Where instances overlap,
    the smaller one lies on top. Pixels of a thing class in no instance are a crowd of that class: objects are there, uncounted.
    """
    numbers = np.zeros(target.shape, np.int32)
    ordered = sorted(rows, key=lambda row: (not row["iscrowd"], -row["area"]))  # crowds below everything
    for number, row in enumerate(ordered, start=1):
        x, y, width, height = (int(v) for v in row["bbox"])
        box = np.s_[y : y + height, x : x + width]
        inside = coco_mask.decode({"size": list(target.shape), "counts": row["rle"].encode()})[box]
        numbers[box][(inside > 0) & (target[box] == row["category"])] = number
    left = np.where(numbers == 0, target, ignore_index)
    allowed = np.arange(len(things)) != ignore_index
    rest, present = _one_per_class(left, allowed, first=len(ordered) + 1)
    return Segments(
        numbers=np.where(numbers > 0, numbers, rest),
        categories=np.array([*(int(row["category"]) for row in ordered), *present], np.int64),
        crowds=np.array([*(bool(row["iscrowd"]) for row in ordered), *things[present]], bool),
    )


def run_lengths(numbers: np.ndarray, chosen: np.ndarray) -> list[str]:
    """COCO's compressed run lengths of the masks `numbers` == i for each i of `chosen`, in one pass over the image.

    `numbers` are integers (H, W), `chosen` are positive and occur in it.
    """
    flat = numbers.T.reshape(-1)  # COCO counts down the columns
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    values, ends = flat[starts], np.append(starts[1:], len(flat))
    order = np.argsort(values, kind="stable")
    values, edges = values[order], np.stack([starts[order], ends[order]], axis=1).reshape(-1)
    lows, highs = np.searchsorted(values, chosen, side="left"), np.searchsorted(values, chosen, side="right")
    lengths = np.diff(edges)
    rles = []
    for low, high in zip(2 * lows, 2 * highs, strict=True):
        after = len(flat) - int(edges[high - 1])
        counts = [int(edges[low]), *lengths[low : high - 1].tolist(), *([after] if after else [])]
        rles.append({"size": list(numbers.shape), "counts": counts})
    return [rle["counts"].decode("ascii") for rle in coco_mask.frPyObjects(rles, *numbers.shape)] if rles else []


def _surest(chosen: np.ndarray, categories: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Those of the components `chosen`, ascending, that are among the `MOST` of their class with the best scores."""
    order = chosen[np.lexsort((chosen, -scores[chosen], categories[chosen]))]
    starts = np.searchsorted(categories[order], categories[order], side="left")
    return np.sort(order[np.arange(len(order)) - starts < MOST])


def _with_stuff(numbers: np.ndarray, categories: np.ndarray, labels: np.ndarray, *, things: np.ndarray) -> Segments:
    """The predicted segments of one image: its components, and one segment for each stuff class."""
    stuff, present = _one_per_class(labels, ~things, first=len(categories) + 1)
    everything = np.concatenate([categories, present])
    return Segments(numbers=np.where(numbers > 0, numbers, stuff), categories=everything, crowds=np.zeros(len(everything), bool))


def _one_per_class(labels: np.ndarray, allowed: np.ndarray, *, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Number the pixels of each class that is `allowed` bool (K,) and present, from `first` on; 0 elsewhere; and these classes."""
    pixels = np.bincount(labels.reshape(-1), minlength=len(allowed))
    present = np.flatnonzero(allowed & (pixels[: len(allowed)] > 0))
    table = np.zeros(len(pixels), np.int32)
    table[present] = np.arange(first, first + len(present), dtype=np.int32)
    return table[labels], present
