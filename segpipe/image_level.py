"""Scores that the sum over images hides: image by image, the worst images, and with the background left out.

All follow from the per-image confusion counts int64 (N, K, K), rows = truth. A class in neither truth nor prediction is NaN, is
left out of every mean, and is counted.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from segpipe.metrics import dice, iou, mean_iou, recall
from segpipe.metrics._ratios import mean_of_defined

WORST_SHARE = 0.1
BACKGROUNDS = ("background", "backgr", "bg", "ground", "unlabelled", "unlabeled", "void", "none")


def background_of(class_names: Sequence[str]) -> int | None:
    """0 where the first class is a background by its name (`BACKGROUNDS`; case, spaces, dashes and underscores do not matter), else
    None: a class at another place, or called otherwise, is a class like all others."""
    plain = "".join(letter for letter in class_names[0].lower() if letter.isalnum()) if class_names else ""
    return 0 if plain in BACKGROUNDS else None


def image_miou(counts: np.ndarray) -> float:
    """mIoU^I of Wang et al. 2023 (arXiv 2310.19252): each image's mean over its classes, then the mean over images. NaN if none."""
    return float(mean_of_defined(mean_iou.compute(counts)))


def image_class_miou(counts: np.ndarray) -> float:
    """mIoU^C of Wang et al. 2023: each class's mean over the images where it is defined, then the mean over classes. NaN if none.

    Unlike mIoU^I it does not weigh the classes by the number of images that hold them.
    """
    return float(mean_of_defined(mean_of_defined(iou.compute(counts).T)))


def worst_images(counts: np.ndarray, *, share: float = WORST_SHARE) -> tuple[float, np.ndarray]:
    """The worst images by mIoU: their mean mIoU (mIoU^Iq of Wang et al. 2023), and their indices int64 (n,), the worst first.

    n is `share` of the images that have a defined mIoU, rounded up. Without any, the mean is NaN and the list empty.

    Raises:
        ValueError: `share` is not in 0..1, 0 excluded.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}: must be above 0 and at most 1")
    values = mean_iou.compute(counts)
    known = np.flatnonzero(~np.isnan(values))
    # The rounding undoes what floats do to 0.1 * 30.
    chosen = known[np.argsort(values[known], kind="stable")][: math.ceil(round(share * known.size, 9))]
    return (float(values[chosen].mean()) if chosen.size else math.nan), chosen


def scores(counts: np.ndarray, *, class_names: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
    """What scores.json says beside the dataset's level; undefined values are None.

    `image_miou` and `image_class_miou`; `worst10_miou` and `worst10_images` (ids, the worst first); `background` (a class's name or
    None) and `miou_nobg`, `mdice_nobg`, `mpa_nobg`, the means of the dataset's level over all classes but that one (over all
    classes, where there is no background); `n_classes_absent`, how many classes are in neither truth nor prediction.
    """
    total = counts.sum(axis=0)
    background = background_of(class_names)
    foreground = [k for k in range(len(class_names)) if k != background]
    worst, indices = worst_images(counts)

    def number(value: float) -> float | None:
        return None if np.isnan(value) else float(value)

    def without(values: np.ndarray) -> float | None:
        return number(float(mean_of_defined(values[foreground])))

    return {
        "image_miou": number(image_miou(counts)),
        "image_class_miou": number(image_class_miou(counts)),
        "worst10_miou": number(worst),
        "worst10_images": [ids[index] for index in indices],
        "background": None if background is None else class_names[background],
        "miou_nobg": without(iou.compute(total)),
        "mdice_nobg": without(dice.compute(total)),
        "mpa_nobg": without(recall.compute(total)),
        "n_classes_absent": int(np.isnan(iou.compute(total)).sum()),
    }
