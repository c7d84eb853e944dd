"""What a dataset is made of: whole numbers counted in each sample, added up, and told for dataset.json and the dataset's page.

Sums are of whole numbers, so neither the order of the samples nor the number of workers changes a digit (volumes of floats
aside). Sizes of instances go into bins an eighth of an octave wide, so the memory does not grow with their number.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from segpipe.shards import SPLITS
from segpipe.training import class_weights

QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}
COMMON_SIZES = 20
HISTOGRAM_PIXELS = 2**23
"""cv2's counts are float32, which are exact up to 2**24."""
AREA_EDGES = np.unique(np.ceil(2.0 ** (np.arange(0, 8 * 42 + 1) / 8)).astype(np.int64))
"""Lower ends of the bins of areas: each area up to 11 pixels has its own, above they are about 9 % wide."""
SIDE_EDGES = 2.0 ** (np.arange(-8 * 16, 1) / 8)
"""Lower ends of the bins of relative sides, which end at 1, an instance that fills its image."""


@dataclass(frozen=True, kw_only=True)
class SampleStatistics:
    """Counts of one sample. `size` is (depth, height, width), with depth 1 for an image; a pixel of a volume is a voxel.

    `pixels` int64 (K,) are the pixels of each class, `ignored` those without a label. `sums` (2, C) holds per channel the sum
    of the image's values and of their squares, `peak` the value that counts as 1 in the mean. `instances` int64 (M, 3) holds
    category, area in pixels and iscrowd.
    """

    size: tuple[int, int, int]
    pixels: np.ndarray
    ignored: int
    sums: np.ndarray
    peak: int
    instances: np.ndarray


def sample_statistics(
    image: np.ndarray, mask: np.ndarray, instances: Sequence[Mapping[str, Any]], *, num_classes: int, ignore_index: int
) -> SampleStatistics:
    """Count one sample: an image uint8 (H, W, 3) with a mask (H, W), or a volume of one channel and its mask, both (D, H, W).

    `mask` holds class indices below `num_classes` and `ignore_index`; `instances` are rows of a shard, of which `category`,
    `area` and `iscrowd` are read.

    Raises:
        ValueError: a volume holds values that are no numbers (NaN or infinite).
    """
    size = (1, *mask.shape) if mask.ndim == 2 else mask.shape
    counts = _label_counts(mask)
    ignored = int(counts[ignore_index]) if ignore_index < len(counts) else 0
    pixels = np.zeros(num_classes, np.int64)
    pixels[: len(counts)] = counts[:num_classes]
    assert int(pixels.sum()) + ignored == mask.size, f"labels {np.flatnonzero(counts)} of {num_classes} classes"
    rows = [(int(row["category"]), round(row["area"]), bool(row["iscrowd"])) for row in instances]
    return SampleStatistics(
        size=(int(size[0]), int(size[1]), int(size[2])),
        pixels=pixels,
        ignored=ignored,
        sums=channel_sums(image if mask.ndim == 2 else image[..., None]),
        peak=255 if image.dtype == np.uint8 else 1,
        instances=np.array(rows, np.int64).reshape(-1, 3),
    )


def channel_sums(pixels: np.ndarray) -> np.ndarray:
    """(2, C): the sum of the values and of their squares in each channel of `pixels` (..., C).

    Whole numbers give exact int64; other values float64.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    channels = pixels.shape[-1]
    if pixels.dtype == np.uint8:
        levels = np.arange(256)
        histograms = np.stack([_histogram(pixels, channel) for channel in range(channels)])
        return np.stack([histograms @ levels, histograms @ levels**2])
    sums = np.zeros((2, channels), np.int64 if pixels.dtype.kind in "iu" else np.float64)
    for part in pixels:  # slice by slice: the squares of a whole volume take eight bytes a voxel
        values = part.reshape(-1, channels).astype(sums.dtype)
        sums += np.stack([values.sum(axis=0), np.square(values).sum(axis=0)])
    if not np.isfinite(sums).all():
        raise ValueError("the image holds values that are no numbers (NaN or infinite)")
    return sums


class DatasetStatistics:
    """Adds up the counts of samples, split by split; `class_names` in the order of the class indices."""

    def __init__(self, class_names: Sequence[str]) -> None:
        self.class_names = list(class_names)
        shape = (len(SPLITS), len(self.class_names))
        self._samples, self._ignored = [0] * len(SPLITS), [0] * len(SPLITS)
        self._pixels, self._images, self._areas, self._instances, self._crowds = (np.zeros(shape, np.int64) for _ in range(5))
        self._sizes: Counter[tuple[int, int, int]] = Counter()
        self._voxels, self._sums, self._peak = [0] * len(SPLITS), [np.zeros((2, 0), object) for _ in SPLITS], 255
        self._least = np.full(len(self.class_names), np.iinfo(np.int64).max)
        self._most = np.zeros(len(self.class_names), np.int64)
        self._area_bins = np.zeros((len(self.class_names), len(AREA_EDGES)), np.int64)
        self._side_bins = np.zeros((len(self.class_names), len(SIDE_EDGES)), np.int64)

    def add(self, split: str, sample: SampleStatistics) -> None:
        """Add one sample of `split` (train, val or test)."""
        at = SPLITS.index(split)
        size = int(np.prod(sample.size))
        self._samples[at] += 1
        self._ignored[at] += sample.ignored
        self._pixels[at] += sample.pixels
        self._images[at] += sample.pixels > 0
        self._areas[at] += size * (sample.pixels > 0)
        self._sizes[sample.size] += 1
        self._voxels[at] += size
        # Python's own whole numbers, which have no end.
        sums = sample.sums.astype(object)
        self._sums[at] = sums if not self._sums[at].size else self._sums[at] + sums
        self._peak = min(self._peak, sample.peak)
        self._add_instances(at, sample.instances, size, root=3 if sample.size[0] > 1 else 2)

    def pixels(self, split: str) -> list[int]:
        """The pixels of each class in `split`, ignored ones left out."""
        return [int(n) for n in self._pixels[SPLITS.index(split)]]

    def mean_and_std(self, split: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per channel the mean and the standard deviation over all pixels of `split`, six decimals; 8-bit values as 0..1.

        A split without samples gives zeros and a deviation of 1e-6 for three channels.
        """
        at = SPLITS.index(split)
        sums = self._sums[at] if self._sums[at].size else np.zeros((2, 3), object)
        count = max(self._voxels[at], 1)
        mean = (sums[0] / count / self._peak).astype(np.float64)
        square = (sums[1] / count / self._peak**2).astype(np.float64)
        std = np.sqrt(np.maximum(square - mean**2, 1e-12))
        return tuple(round(float(m), 6) for m in mean), tuple(round(float(s), 6) for s in std)

    def summary(self) -> dict[str, Any]:
        """All counts as JSON-ready values; None where a number is undefined, never NaN.

        - `splits`: for each split samples, pixels, ignored and their share.
        - `classes`: for each class its name, and by split its pixels, its share of the labelled pixels and the number of
          images it occurs in; `weights` from train, by the definitions of `segpipe.training.class_weights`, None for a class
          that does not occur; `instances` with their count by split and, over all splits, the quantiles of `area` in pixels and
          of `side`, the root of the area's part of the image (5 % either way; the ends exact), crowds counted apart.
        - `sizes`: least, median and largest depth, height and width, and up to 20 of the most common sizes.
        - `mean`, `std`: of train, see `mean_and_std`.
        """
        weights = self._weights()
        mean, std = self.mean_and_std("train") if self._samples[0] else (None, None)
        return {
            "splits": {
                split: {
                    "samples": self._samples[i],
                    "pixels": self._voxels[i],
                    "ignored": self._ignored[i],
                    "ignored_share": _share(self._ignored[i], self._voxels[i]),
                }
                for i, split in enumerate(SPLITS)
            },
            "classes": [self._class(index, weights) for index in range(len(self.class_names))],
            "sizes": self._size_summary(),
            "mean": None if mean is None else list(mean),
            "std": None if std is None else list(std),
        }

    def _add_instances(self, at: int, instances: np.ndarray, size: int, *, root: int) -> None:
        category, area, crowd = instances.T
        np.add.at(self._crowds[at], category[crowd == 1], 1)
        # A crowd is a region of many, so its area says nothing of the size of one.
        category, area = category[(crowd == 0) & (area > 0)], area[(crowd == 0) & (area > 0)]
        np.add.at(self._instances[at], category, 1)
        np.minimum.at(self._least, category, area)
        np.maximum.at(self._most, category, area)
        np.add.at(self._area_bins, (category, np.searchsorted(AREA_EDGES, area, side="right") - 1), 1)
        side = (area / size) ** (1 / root)
        np.add.at(self._side_bins, (category, np.maximum(np.searchsorted(SIDE_EDGES, side, side="right") - 1, 0)), 1)

    def _class(self, index: int, weights: Mapping[str, Sequence[float | None]]) -> dict[str, Any]:
        labelled = self._pixels.sum(axis=1)
        instances: dict[str, Any] = {
            "count": {split: int(self._instances[i, index]) for i, split in enumerate(SPLITS)},
            "crowds": {split: int(self._crowds[i, index]) for i, split in enumerate(SPLITS)},
            "area": None,
            "side": None,
        }
        if self._instances[:, index].any():
            least, most = int(self._least[index]), int(self._most[index])
            areas = _quantiles(self._area_bins[index], AREA_EDGES)
            instances["area"] = {
                "min": least,
                **{name: min(max(round(value), least), most) for name, value in areas.items()},
                "max": most,
            }
            sides = _quantiles(self._side_bins[index], SIDE_EDGES)
            instances["side"] = {name: min(1.0, float(f"{value:.3g}")) for name, value in sides.items()}
        return {
            "name": self.class_names[index],
            "pixels": {split: int(self._pixels[i, index]) for i, split in enumerate(SPLITS)},
            "share": {split: _share(int(self._pixels[i, index]), int(labelled[i])) for i, split in enumerate(SPLITS)},
            "images": {split: int(self._images[i, index]) for i, split in enumerate(SPLITS)},
            "weights": {name: values[index] for name, values in weights.items()},
            "instances": instances,
        }

    def _weights(self) -> dict[str, list[float | None]]:
        pixels, areas = self._pixels[0].tolist(), self._areas[0].tolist()
        names = [name for name in class_weights.NAMES if name != "none"]
        if not any(pixels):
            return {name: [None] * len(pixels) for name in names}
        built = {name: class_weights.build(name, pixels=pixels, areas=areas) for name in names}
        return {
            name: [float(f"{w:.6g}") if n else None for w, n in zip(values, pixels, strict=True)] for name, values in built.items()
        }

    def _size_summary(self) -> dict[str, Any]:
        axes = {}
        for axis, name in enumerate(("depth", "height", "width")):
            lengths: Counter[int] = Counter()
            for size, count in self._sizes.items():
                lengths[size[axis]] += count
            axes[name] = _spread(lengths)
        common = sorted(self._sizes.items(), key=lambda item: (-item[1], item[0]))[:COMMON_SIZES]
        rows = [{"depth": d, "height": h, "width": w, "count": count} for (d, h, w), count in common]
        return {"different": len(self._sizes), **axes, "common": rows}


def _label_counts(mask: np.ndarray) -> np.ndarray:
    """int64: the pixels of each label value, at least 256 long."""
    if mask.dtype == np.uint8:
        return _histogram(mask.reshape(-1, mask.shape[-1])[..., None], 0)
    return np.bincount(mask.ravel(), minlength=256)


def _histogram(values: np.ndarray, channel: int) -> np.ndarray:
    """int64 (256,): how often each value of uint8 (..., W, C) occurs in one channel; several times faster than np.bincount."""
    lines = values.reshape(-1, *values.shape[-2:])
    step = max(1, HISTOGRAM_PIXELS // max(lines.shape[1], 1))
    counts = np.zeros(256, np.int64)
    for start in range(0, len(lines), step):
        part = np.ascontiguousarray(lines[start : start + step])
        counts += cv2.calcHist([part], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
    return counts


def _share(part: int, whole: int) -> float | None:
    return float(f"{part / whole:.6g}") if whole else None


def _spread(counts: Mapping[int, int]) -> dict[str, int] | None:
    """The least, the (lower) median and the largest of values that occur so often."""
    if not counts:
        return None
    values = sorted(counts)
    upto = np.cumsum([counts[v] for v in values])
    return {"min": values[0], "median": values[int(np.searchsorted(upto, upto[-1] / 2))], "max": values[-1]}


def _quantiles(bins: np.ndarray, edges: np.ndarray) -> dict[str, float]:
    """The quantiles of values counted in bins with these lower ends: the middle of the bin each falls into."""
    upto = np.cumsum(bins)
    found = {}
    for name, part in QUANTILES.items():
        at = int(np.searchsorted(upto, part * upto[-1]))
        lower = float(edges[at])
        whole = edges.dtype.kind == "i"
        upper = float(edges[at + 1]) - (1 if whole else 0) if at + 1 < len(edges) else lower
        found[name] = (lower * upper) ** 0.5
    return found
