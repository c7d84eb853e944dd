"""Mask AP by faster-coco-eval against pycocotools, at equal output: `python -m benchmarks.instances`. Prints the ratio.

300 images of 12 objects and 36 detections each, the latter moved copies of the former and noise. Both get the same run lengths,
and both compute all overlaps. The two take turns; the ratio is that of the medians.
"""

import contextlib
import io
import statistics
import time

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from segpipe.items import encode_instance
from segpipe.mask_ap import Detection, MaskAP

IMAGES, OBJECTS, COPIES, CLASSES, SIZE, ROUNDS = 300, 12, 3, 8, (240, 320), 5


def scene(rng: np.random.Generator) -> tuple[list[dict[str, object]], list[Detection]]:
    """One image's true objects (ellipses) and the detections."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    rows, found = [], []
    for _ in range(OBJECTS):
        centre, radii = rng.uniform((20, 20), (SIZE[0] - 20, SIZE[1] - 20)), rng.uniform(4, 50, 2)
        category = int(rng.integers(CLASSES))
        for copy in range(COPIES + 1):
            moved = centre + (rng.normal(0, 0.15, 2) * radii if copy else 0)
            mask = ((y - moved[0]) / radii[0]) ** 2 + ((x - moved[1]) / radii[1]) ** 2 <= 1
            row = encode_instance({"mask": mask, "iscrowd": not copy and rng.random() < 0.05}, category)
            if copy:
                found.append(Detection(category=category, score=float(rng.random()), rle=row["rle"]))
            else:
                rows.append(row)
    return rows, found


def theirs(ours: MaskAP) -> tuple[COCO, COCO]:
    """The same annotations, indexed by pycocotools."""
    sides = COCO(), COCO()
    for side, rows in zip(sides, (ours._true, ours._detected), strict=True):
        categories = [{"id": k + 1} for k in range(CLASSES)]
        side.dataset = {"images": ours._images, "categories": categories, "annotations": [dict(row) for row in rows]}
        side.createIndex()
    return sides


def by_pycocotools(ours: MaskAP) -> list[float]:
    evaluation = COCOeval(*theirs(ours), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(value) for value in evaluation.stats[:3]]


def main() -> None:
    rng = np.random.default_rng(0)
    ours = MaskAP([str(k) for k in range(CLASSES)])
    for _ in range(IMAGES):
        ours.add(*scene(rng), size=SIZE)
    seconds: dict[str, list[float]] = {"segpipe": [], "pycocotools": []}
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        document = ours.document()
        middle = time.perf_counter()
        with contextlib.redirect_stdout(io.StringIO()):
            expected = by_pycocotools(ours)
        seconds["segpipe"].append(middle - start)
        seconds["pycocotools"].append(time.perf_counter() - middle)
        found = [document[key] for key in ("ap", "ap50", "ap75")]
        assert np.allclose(found, expected, rtol=1e-12), f"{found} is not {expected}"
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}  # the first round imports
    print(f"{IMAGES} images, {IMAGES * OBJECTS} objects, {IMAGES * OBJECTS * COPIES} detections; AP {document['ap']:.4f} by both")
    for name, value in medians.items():
        print(f"{name:12} {value:6.2f} s")
    print(f"ratio {medians['pycocotools'] / medians['segpipe']:.2f}")


if __name__ == "__main__":
    main()
