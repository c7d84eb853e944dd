"""Contact sheets of volumes for the page of a dataset; those of images are drawn by convert."""

from pathlib import Path

import numpy as np

from segpipe import drawing, shards
from segpipe.shards import DatasetInfo

DARKEST, BRIGHTEST = 1, 99
"""Percentiles of a slice that are drawn black and white."""


def volume_sheets(folder: Path, info: DatasetInfo, *, count: int = 12) -> dict[str, np.ndarray]:
    """For each split of the converted volumes in `folder` a sheet uint8 (H, W, 3) of one slice of each of `count` volumes."""
    sheets = {}
    for split, total in ((split, total) for split, total in info.splits.items() if total):
        samples = shards.Split(folder, split)
        chosen = sorted({int(i) for i in np.linspace(0, total - 1, min(count, total))})
        rows = []
        for number in chosen:
            image, mask = samples.arrays(number)
            axis, place = telling_slice(mask, ignore_index=info.ignore_index)
            name = f"{samples[number].id}, slice {place} of axis {axis}"
            rows.append((name, grey(image.take(place, axis)), mask.take(place, axis)))
        title = f"{info.name} · {split} · {total} volumes, {len(rows)} shown"
        sheets[split] = drawing.contact_sheet(rows, info.classes, title=title, ignore_index=info.ignore_index)
    return sheets


def telling_slice(mask: np.ndarray, *, ignore_index: int) -> tuple[int, int]:
    """(axis, index) of a slice of labels (D, H, W): across the shortest axis, with most voxels beside the commonest class."""
    axis = int(np.argmin(mask.shape))
    counts = np.bincount(mask.ravel(), minlength=ignore_index + 1)
    counts[ignore_index] = 0
    others = (mask != counts.argmax()) & (mask != ignore_index)
    sums = others.sum(tuple(other for other in range(3) if other != axis))
    return axis, int(sums.argmax()) if sums.any() else mask.shape[axis] // 2


def grey(plane: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3): a slice of any number type (H, W), its darkest hundredth black and its brightest one white."""
    values = plane.astype(np.float64)
    low, high = np.percentile(values, (DARKEST, BRIGHTEST))
    scaled = np.clip((values - low) * (255 / (high - low) if high > low else 0), 0, 255)
    return np.repeat(np.rint(scaled).astype(np.uint8)[..., None], 3, axis=2)
