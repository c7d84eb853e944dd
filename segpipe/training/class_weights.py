"""Weights that make rare classes count more in a loss, from the masks of the train split.

The weights published with SegNet do not come out of CamVid's labels by this definition, nor by any nearby one.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from segpipe.shards import Split, decode_mask

NAMES = ("none", "median_frequency", "inverse_frequency")


def of_split(name: str, split: Split, *, num_classes: int) -> list[float] | None:
    """The weights `build` makes from all masks of a split, which are decoded for it; None, without a look at them, for "none".

    Raises:
        ValueError: the name is unknown, or the split has no labelled pixel.
    """
    if name not in NAMES:
        raise ValueError(f"class_weights {name!r}: unknown. Choices: {', '.join(NAMES)}.")
    if name == "none":
        return None

    def count(index: int) -> np.ndarray:
        return np.bincount(decode_mask(split[index].mask).ravel(), minlength=num_classes)

    pixels, areas = np.zeros(num_classes, np.int64), np.zeros(num_classes, np.int64)
    with ThreadPoolExecutor() as pool:
        for counts in pool.map(count, range(len(split))):
            pixels += counts[:num_classes]
            areas += counts.sum() * (counts[:num_classes] > 0)
    if not pixels.any():
        raise ValueError(f"{split.folder}: class_weights {name!r}, but the {split.name} split has no labelled pixel. Use none.")
    return build(name, pixels=pixels.tolist(), areas=areas.tolist())


def build(name: str, *, pixels: Sequence[int], areas: Sequence[int]) -> list[float]:
    """One weight per class. A class without a pixel gets 0: it has no loss to weigh, and 1/0 is no weight.

    - `median_frequency`: median(f) / f_c with f_c = pixels_c / areas_c and the median over the classes that occur
      (Eigen and Fergus 2015, arXiv 1411.4734).
    - `inverse_frequency`: 1 / (C * s_c) with s_c the class's share of all labelled pixels and C the number of classes that
      occur, so that the mean weight of a labelled pixel is 1.

    Args:
        name: one of the two.
        pixels: labelled pixels of each class; at least one class has some.
        areas: for each class the pixels, ignored ones included, of all images in which it occurs.
    """
    counts = np.asarray(pixels, np.float64)
    present = counts > 0
    assert present.any(), "no labelled pixel"
    if name == "median_frequency":
        frequency = np.divide(counts, np.asarray(areas, np.float64), out=np.zeros_like(counts), where=present)
        scale = np.median(frequency[present])
    else:
        assert name == "inverse_frequency", name
        frequency, scale = counts / counts.sum(), 1.0 / present.sum()
    weights = np.divide(scale, frequency, out=np.zeros_like(counts), where=present)
    return [float(w) for w in weights]
