"""Polygons to masks against pycocotools, per annotation: `python -m benchmarks.polygons [instances.json]`.

Each annotation's polygons are painted into a label map of its image, as convert does it. The peer is what is usually written:
frPyObjects, merge and decode of the whole image, then `labels[mask] = value`. The annotations are those of the given COCO file,
else of the sample coco2017_tiny where the tests find it, else 400 drawn stars in images of 640 x 480. The two take turns in
rounds over all annotations; the medians and their ratio are printed, and all label maps are asserted to be equal.
"""

import math
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask

from segpipe.datasets.blocks import coco_files, polygons

ROUNDS = 15
SAMPLES = Path(os.environ.get("SEGPIPE_SAMPLE_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
SAMPLE = SAMPLES / "coco2017_tiny" / "annotations" / "instances_train2017.json"
Shapes = list[list[float]]
Annotation = tuple[int, int, Shapes]
"""Height and width of the image, and the polygons."""


def main() -> None:
    # Silenced here, as its cost (a message per decode) is not what is compared.
    warnings.filterwarnings("ignore", "__array__ implementation doesn't accept a copy keyword", DeprecationWarning)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLE
    annotations = real(path) if path.exists() else [star(random.Random(i)) for i in range(400)]
    print(
        f"{len(annotations)} annotations of {path.name if path.exists() else 'drawn stars'}; medians of {ROUNDS} interleaved rounds"
    )
    compare(annotations)


def real(path: Path) -> list[Annotation]:
    """All annotations of a COCO file that are polygons."""
    entries = [(key, entry) for key, _, _, entry in coco_files.entries(path)]
    sizes = {entry["id"]: (entry["height"], entry["width"]) for key, entry in entries if key == "images"}
    outlines = [entry for key, entry in entries if key == "annotations" and isinstance(entry["segmentation"], list)]
    return [(*sizes[entry["image_id"]], entry["segmentation"]) for entry in outlines]


def star(rng: random.Random, *, height: int = 480, width: int = 640) -> Annotation:
    """An outline of 8 to 60 corners, of the size that COCO's objects have (half of them below 60 pixels across)."""
    radius, corners = min(8 * math.exp(abs(rng.gauss(0, 1.3))), 230), rng.randint(8, 60)
    x, y = rng.uniform(0, width), rng.uniform(0, height)
    shape = []
    for i in range(corners):
        angle, reach = 2 * math.pi * i / corners, radius * rng.uniform(0.5, 1)
        shape += [round(x + reach * math.cos(angle), 2), round(y + reach * math.sin(angle), 2)]
    return height, width, [shape]


def compare(annotations: list[Annotation]) -> None:
    """Time the two over all annotations, assert that they paint the same, and print microseconds and the ratio."""
    maps = {size: np.zeros(size, np.uint8) for size in {(height, width) for height, width, _ in annotations}}

    def ours(labels: np.ndarray, shapes: Shapes) -> None:
        polygons.paint(labels, shapes, 1)

    def theirs(labels: np.ndarray, shapes: Shapes) -> None:
        rle = coco_mask.merge(coco_mask.frPyObjects(shapes, *labels.shape))
        labels[coco_mask.decode(rle).astype(bool)] = 1

    runs: dict[str, Callable[[np.ndarray, Shapes], None]] = {"segpipe": ours, "pycocotools": theirs}
    for height, width, shapes in annotations:
        painted = [np.zeros((height, width), np.uint8) for _ in runs]
        for run, labels in zip(runs.values(), painted, strict=True):
            run(labels, shapes)
        assert (painted[0] == painted[1]).all(), f"different pixels for {shapes}"
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            for height, width, shapes in annotations:
                run(maps[height, width], shapes)
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) / len(annotations) for name, values in seconds.items()}
    for name, median in medians.items():
        print(f"{name:12} {1e6 * median:7.1f} us per annotation   {median / medians['segpipe']:5.2f} x")


if __name__ == "__main__":
    main()
