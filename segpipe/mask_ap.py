"""Average precision of instance masks by COCO's rules, computed by faster-coco-eval: the numbers of pycocotools, sooner.

The rules (Lin et al. 2014, arXiv 1405.0312; cocodataset.org/#detection-eval): detections are matched to objects of their class in
the order of their scores, at IoU .5, .55, ... .95, with 101 points of recall; of each class an image's 100 best detections count.
A crowd is no object that can be missed: a detection of which enough lies in one is neither right nor wrong. Small, medium and
large are areas below 32^2, up to 96^2 and above, by the `area` of the true object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

MOST = 100
"""Detections of one class in one image that count, the ones with the best scores."""
SIZES = ("all", "small", "medium", "large")
LIMITS = (1, 10, MOST)


@dataclass(frozen=True, kw_only=True)
class Detection:
    """One predicted object: its class index, its score (any range, larger is surer), and its mask as COCO's compressed RLE."""

    category: int
    score: float
    rle: str


class MaskAP:
    """True and predicted objects of a split, added image by image. They stay as run lengths: some hundred bytes per object."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self._names = list(class_names)
        self._images: list[dict[str, Any]] = []
        self._true: list[dict[str, Any]] = []
        self._detected: list[dict[str, Any]] = []

    @property
    def objects(self) -> int:
        """True objects so far, crowds left out."""
        return sum(not row["iscrowd"] for row in self._true)

    def add(self, instances: Sequence[Mapping[str, Any]], detections: Sequence[Detection], *, size: tuple[int, int]) -> None:
        """Add one image of `size` (height, width).

        `instances` are the rows of a shard: category, rle, area, iscrowd. Of detections with equal scores the first counts first.
        """
        image = len(self._images) + 1
        self._images.append({"id": image, "height": size[0], "width": size[1]})
        for row in instances:
            segment = {"size": list(size), "counts": row["rle"]}
            self._true.append(
                _row(image, len(self._true), row["category"], segment)
                | {"area": float(row["area"]), "iscrowd": int(row["iscrowd"])}
            )
        kept: dict[int, int] = {}
        for detection in sorted(detections, key=lambda d: -d.score):  # sorted() is stable, as COCO's own sorting is
            kept[detection.category] = kept.get(detection.category, 0) + 1
            if kept[detection.category] <= MOST:
                segment = {"size": list(size), "counts": detection.rle}
                area = float(coco_mask.area({"size": list(size), "counts": detection.rle.encode()}))
                self._detected.append(
                    _row(image, len(self._detected), detection.category, segment)
                    | {"area": area, "iscrowd": 0, "score": float(detection.score)}
                )

    def document(self) -> dict[str, Any]:
        """For JSON: ap, ap50, ap75, ap_small, ap_medium, ap_large, ar1, ar10, ar100, ar_small, ar_medium, ar_large, and more.

        These are shares, 0..1, and means over the classes that have objects; None where there is no object, COCO's -1. Further
        `objects`, the number of true ones without crowds, and `by_class`, {name: {ap, ap50, ar100, objects}}.
        """
        precision, recall = self._tables()
        categories = np.array([row["category_id"] for row in self._true if not row["iscrowd"]], np.int64)
        counts = np.bincount(categories, minlength=len(self._names) + 1)[1:]
        return {
            "ap": _mean(precision[:, :, :, 0]),
            "ap50": _mean(precision[0, :, :, 0]),
            "ap75": _mean(precision[5, :, :, 0]),
            **{f"ap_{size}": _mean(precision[:, :, :, i]) for i, size in enumerate(SIZES) if i},
            **{f"ar{limit}": _mean(recall[:, :, 0, i]) for i, limit in enumerate(LIMITS)},
            **{f"ar_{size}": _mean(recall[:, :, i, -1]) for i, size in enumerate(SIZES) if i},
            "objects": int(counts.sum()),
            "by_class": {
                name: {
                    "ap": _mean(precision[:, :, k, 0]),
                    "ap50": _mean(precision[0, :, k, 0]),
                    "ar100": _mean(recall[:, k, 0, -1]),
                    "objects": int(counts[k]),
                }
                for k, name in enumerate(self._names)
            },
        }

    def _tables(self) -> tuple[np.ndarray, np.ndarray]:
        """Precision (10 IoUs, 101 recalls, K, 4 sizes) with 100 detections, and recall (10, K, 4, 3 limits); -1 is undefined."""
        if not self._images:
            return np.full((10, 101, len(self._names), 4), -1.0), np.full((10, len(self._names), 4, 3), -1.0)
        from faster_coco_eval import COCO, COCOeval_faster  # here, as few evaluations need it

        categories = [{"id": k + 1, "name": name} for k, name in enumerate(self._names)]
        truth, found = (
            # Copies of the rows: the evaluation writes into them.
            COCO({"images": self._images, "categories": categories, "annotations": [dict(row) for row in rows]})
            for rows in (self._true, self._detected)
        )
        # What it has to tell goes to a logger; its errors are raised. One thread, so that it does not take a core for each.
        evaluation = COCOeval_faster(truth, found, iouType="segm", rle_iou_max_workers=1)
        evaluation.evaluate()
        evaluation.accumulate()
        return np.asarray(evaluation.eval["precision"])[..., -1], np.asarray(evaluation.eval["recall"])


def _row(image: int, before: int, category: int, segment: dict[str, Any]) -> dict[str, Any]:
    """What both kinds of COCO's annotations have; ids count from 1, as 0 means unmatched there."""
    return {"id": before + 1, "image_id": image, "category_id": int(category) + 1, "segmentation": segment}


def _mean(values: np.ndarray) -> float | None:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None
