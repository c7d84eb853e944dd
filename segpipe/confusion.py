"""Confusion counts of label maps, exact int64, at about one nanosecond a pixel: every score is derived from these.

The counting itself is OpenCV's two-dimensional histogram. A numba kernel with interleaved tables gains about a tenth on large
masks, and costs every process more than a second of import and set-up, in which OpenCV counts ten thousand small ones.
"""

import cv2
import numpy as np

PIECE = 2**24
"""Pixels counted in one call: OpenCV returns float32 bins, which are exact up to here."""
INTERLEAVE_FROM = 2**16
"""Pixels from which interleaving pays for its two copies."""


def count(target: np.ndarray, prediction: np.ndarray, *, num_classes: int, ignore_index: int) -> np.ndarray:
    """Confusion counts of one image.

    Args:
        target: true labels, uint8 or uint16 (H, W) (any shape; both must have the same).
        prediction: predicted labels, uint8 or uint16, same shape. Where `target` is ignored it may hold any value.
        num_classes: K; labels are 0..K-1.
        ignore_index: pixels whose true label is this are dropped before counting, whatever was predicted there.

    Returns:
        int64 (K, K), rows = truth, columns = prediction; the sum is the number of pixels that are not ignored.

    Raises:
        ValueError: shapes differ, a dtype is another, or a label on a pixel that counts is not in 0..K-1.
    """
    if target.shape != prediction.shape:
        raise ValueError(f"prediction has shape {prediction.shape}, target {target.shape}: resize the prediction first")
    for name, labels in (("target", target), ("prediction", prediction)):
        if labels.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"{name} is {labels.dtype}: labels are uint8 or uint16, convert them with .astype(np.uint8)")
    dtype = np.promote_types(target.dtype, prediction.dtype)
    if not 1 <= num_classes <= np.iinfo(np.uint16).max + 1:
        raise ValueError(f"num_classes is {num_classes}: must be 1 to 65536")
    truth = np.ascontiguousarray(target, dtype).ravel()
    predicted = np.ascontiguousarray(prediction, dtype).ravel()
    counts = np.zeros((num_classes, num_classes), np.int64)
    for start in range(0, truth.size, PIECE):
        counts += _histogram(truth[start : start + PIECE], predicted[start : start + PIECE], num_classes)
    ignored = 0
    if 0 <= ignore_index <= np.iinfo(dtype).max:
        ignored = int(np.count_nonzero(truth == ignore_index))
    if 0 <= ignore_index < num_classes:
        counts[ignore_index] = 0
    if int(counts.sum()) + ignored != truth.size:
        _explain(target, prediction, num_classes, ignore_index)
    return counts


def count_batch(targets: np.ndarray, predictions: np.ndarray, *, num_classes: int, ignore_index: int) -> np.ndarray:
    """Confusion counts of each image of a batch: (N, H, W) labels give int64 (N, K, K). See `count`."""
    if targets.shape != predictions.shape:
        raise ValueError(f"predictions have shape {predictions.shape}, targets {targets.shape}: resize the predictions")
    counts = np.zeros((len(targets), num_classes, num_classes), np.int64)
    for index, (target, prediction) in enumerate(zip(targets, predictions, strict=True)):
        counts[index] = count(target, prediction, num_classes=num_classes, ignore_index=ignore_index)
    return counts


def _histogram(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """int64 (K, K): pairs of labels (n,) that are both in 0..K-1; all others are left out."""
    if truth.size >= INTERLEAVE_FROM:
        # Neighbouring pixels mostly hold the same pair, and each increment of a cell waits for the one before it. Taking pixels
        # from four quarters of the image in turn makes the waits rare.
        whole = truth.size - truth.size % 4
        return _bins(_interleave(truth[:whole]), _interleave(predicted[:whole]), num_classes) + _bins(
            truth[whole:], predicted[whole:], num_classes
        )
    return _bins(truth, predicted, num_classes)


def _interleave(labels: np.ndarray) -> np.ndarray:
    """The same labels (n,), n divisible by 4, in the order 0, n/4, n/2, 3n/4, 1, n/4 + 1, ..."""
    merged: np.ndarray = cv2.merge(list(labels.reshape(4, -1)))
    return merged.reshape(-1)


def _bins(truth: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    if not truth.size:
        return np.zeros((num_classes, num_classes), np.int64)
    bins: np.ndarray = cv2.calcHist([truth, predicted], [0, 1], None, [num_classes, num_classes], [0, num_classes, 0, num_classes])
    return bins.reshape(num_classes, num_classes).astype(np.int64)


def _explain(target: np.ndarray, prediction: np.ndarray, num_classes: int, ignore_index: int) -> None:
    """Raise the ValueError that names the wrong labels."""
    valid = target != ignore_index
    for name, labels in (("target", target), ("prediction", prediction)):
        wrong = labels[valid & (labels >= num_classes)]
        if wrong.size:
            values = ", ".join(str(v) for v in np.unique(wrong)[:8])
            raise ValueError(
                f"{name}: {wrong.size} pixels hold the labels {values}, which are not in 0..{num_classes - 1}"
                f" and not the ignored {ignore_index}"
            )
    raise AssertionError("the histogram left out a pixel that is in range")
