"""Metrics of label masks over a test split: asks those of `segpipe/metrics` image by image, and averages what they answer.

Averages are taken per class over the images on which a value is defined, then over classes. A distance is undefined where truth or
prediction lacks the class, so a model that misses it altogether is not punished there: `scores` counts such images, and the shares
(boundary IoU, NSD) are 0 on them.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from segpipe import confusion
from segpipe.metrics._ratios import mean_of_defined
from segpipe.metrics.blocks.mask_pair import MaskPair

TRIMAP_RADII = (1, 2, 4, 8, 16, 32)


def split(metrics: Mapping[str, ModuleType]) -> tuple[dict[str, ModuleType], dict[str, ModuleType]]:
    """Modules of `segpipe/metrics` by name, parted into those of confusion counts and those of label masks."""
    of_masks = {name: metric for name, metric in metrics.items() if hasattr(metric, "measure")}
    return {name: metric for name, metric in metrics.items() if name not in of_masks}, of_masks


def measure(
    target: np.ndarray,
    prediction: np.ndarray,
    *,
    num_classes: int,
    ignore_index: int,
    metrics: Mapping[str, ModuleType],
    spacing: Sequence[float] | None = None,
) -> dict[str, np.ndarray]:
    """The values of one image.

    Args:
        target: true labels, uint8 or uint16 (H, W).
        prediction: predicted labels, uint8 or uint16 (H, W).
        num_classes: K; labels are 0..K-1, and others are no class's.
        ignore_index: pixels whose true label is this are taken out of the truth and of the prediction before anything else.
        metrics: those of label masks by name, modules as in `segpipe/metrics`.
        spacing: distance of neighbouring pixels along rows and along columns; None is 1 and 1, so that distances are in pixels.

    Returns:
        float64 (K,) for each key of each metric; NaN where undefined.

    Raises:
        ValueError: the shapes or the dtypes do not fit, or the spacing is not two positive numbers.
    """
    truth, predicted = _comparable(target, prediction, ignore_index=ignore_index)
    gaps = _spacing(spacing)
    values = {key: np.full(num_classes, np.nan) for metric in metrics.values() for key in metric.KEYS}
    in_truth, in_prediction = (_present(labels, num_classes) for labels in (truth, predicted))
    for k in np.flatnonzero(in_truth | in_prediction):
        if k == ignore_index:
            continue
        pair = _pair(truth, predicted, int(k), gaps) if in_truth[k] and in_prediction[k] else None
        for metric in metrics.values():
            numbers = [metric.ONE_EMPTY] * len(metric.KEYS) if pair is None else metric.measure(pair)
            for key, number in zip(metric.KEYS, numbers, strict=True):
                values[key][k] = number
    return values


def scores(values: Mapping[str, np.ndarray], counts: np.ndarray, *, class_names: Sequence[str]) -> dict[str, Any]:
    """What scores.json says of the metrics of masks; undefined values are None.

    Args:
        values: by key float64 (N, K), the rows of `measure` for N images.
        counts: int64 (N, K, K), the confusion counts of the same predictions.
        class_names: the K classes.

    Returns:
        For each key {class: mean over the images where it is defined} and, as `mean_<key>`, the mean of those over the classes that
        have one; `surface_images` and `surface_one_empty`: {class: images on which truth and prediction both have it, and on
        which only one of them has}. Where neither has it, no value is defined.
    """
    in_truth, in_prediction = counts.sum(axis=2) > 0, counts.sum(axis=1) > 0

    def by_class(numbers: np.ndarray) -> dict[str, Any]:
        return dict(zip(class_names, (None if n != n else n for n in numbers.tolist()), strict=True))

    result: dict[str, Any] = {}
    for key, table in values.items():
        assert table.shape == in_truth.shape, f"{key} is {table.shape}, the counts are of {in_truth.shape} images and classes"
        means = mean_of_defined(table.T)
        mean = float(mean_of_defined(means))
        result |= {f"mean_{key}": None if np.isnan(mean) else mean, key: by_class(means)}
    both, one = (in_truth & in_prediction).sum(axis=0), (in_truth ^ in_prediction).sum(axis=0)
    return {**result, "surface_images": by_class(both), "surface_one_empty": by_class(one)} if values else {}


def trimap_counts(
    target: np.ndarray,
    prediction: np.ndarray,
    *,
    num_classes: int,
    ignore_index: int,
    radii: Sequence[int] = TRIMAP_RADII,
) -> np.ndarray:
    """Confusion counts inside bands around the changes of the true label: how well contours are followed, and how far off not.

    A pixel is in the band of radius r if its distance to a pixel with another label among its four neighbours is at most r - 1
    (the trimaps of Kohli et al. 2009 and Kraehenbuehl and Koltun 2011). A change to ignored pixels is a change; ignored pixels
    themselves do not count.

    Args:
        target, prediction, num_classes, ignore_index: see `confusion.count`.
        radii: R radii in pixels, at least 1, ascending.

    Returns:
        int64 (R, K, K); a band holds all narrower ones. Summed over images, any metric of confusion counts is a curve over `radii`.

    Raises:
        ValueError: what `confusion.count` raises, or the radii do not ascend from at least 1.
    """
    if list(radii) != sorted(set(radii)) or (len(radii) and radii[0] < 1):
        raise ValueError(f"radii are {list(radii)}: give ascending ones from 1 pixel on")
    if target.shape != prediction.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, target {target.shape}: resize the prediction first")
    counts = np.zeros((len(radii), num_classes, num_classes), np.int64)
    changes = label_changes(target)
    if not changes.any() or not len(radii):
        return counts
    distance = cv2.distanceTransform((~changes).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    near = distance <= radii[-1] - 1
    truth, predicted = target[near], prediction[near]
    ring = np.searchsorted(np.asarray(radii, np.float32) - 1, distance[near])
    for index in range(len(radii)):
        mine = ring == index
        counts[index] = confusion.count(truth[mine], predicted[mine], num_classes=num_classes, ignore_index=ignore_index)
    return counts.cumsum(axis=0)


def label_changes(labels: np.ndarray) -> np.ndarray:
    """bool (H, W): the pixels of which one of the four neighbours has another label."""
    changes = np.zeros(labels.shape, bool)
    for ahead, behind in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differ = labels[ahead] != labels[behind]
        changes[ahead] |= differ
        changes[behind] |= differ
    return changes


def _comparable(target: np.ndarray, prediction: np.ndarray, *, ignore_index: int) -> tuple[np.ndarray, np.ndarray]:
    """The two label maps in one dtype, the ignored pixels ignored in both."""
    if target.shape != prediction.shape or target.ndim != 2:
        raise ValueError(f"prediction has shape {prediction.shape}, target {target.shape}: both must be the same (H, W)")
    for name, labels in (("target", target), ("prediction", prediction)):
        if labels.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"{name} is {labels.dtype}: labels are uint8 or uint16, convert them with .astype(np.uint8)")
    dtype = np.promote_types(target.dtype, prediction.dtype)
    truth, predicted = target.astype(dtype, copy=False), prediction.astype(dtype, copy=False)
    ignored = truth == ignore_index
    return truth, np.where(ignored, truth, predicted) if ignored.any() else predicted


def _present(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """bool (K,): the classes that `labels` (H, W) holds."""
    counts: np.ndarray = cv2.calcHist([labels], [0], None, [num_classes], [0, num_classes])
    return counts.ravel() > 0


def _pair(truth: np.ndarray, predicted: np.ndarray, k: int, spacing: tuple[float, float]) -> MaskPair:
    """Class `k` on the box around it; both label maps (H, W) hold it."""
    mine, guessed = truth == k, predicted == k
    left, top, width, height = cv2.boundingRect((mine | guessed).view(np.uint8))
    box = np.s_[top : top + height, left : left + width]
    masks = [np.ascontiguousarray(mask[box]).view(np.uint8) for mask in (mine, guessed)]
    return MaskPair(truth=masks[0], prediction=masks[1], spacing=spacing, image_shape=(truth.shape[0], truth.shape[1]))


def _spacing(spacing: Sequence[float] | None) -> tuple[float, float]:
    rows, columns = (float(s) for s in (spacing or (1.0, 1.0)))
    if not (0 < rows < np.inf and 0 < columns < np.inf):
        raise ValueError(f"spacing is {spacing}: give two positive lengths, along rows and along columns")
    return rows, columns
