"""Does a network's confidence say how often it is right? Temperature scaling, reliability bins, and the map of confidence.

The confidence of a pixel is the largest of its class probabilities, softmax(logits / T). One temperature T per model, fitted on
val, makes it honest without moving a single label (Guo et al. 2017, arXiv 1706.04599). All counts are of pixels, and ignored
pixels are in none of them. Nothing holds more than one image; probabilities are made a strip of rows at a time.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.optimize import brentq

BINS = 15
"""Bins of equal width over 0..1, closed above, as in Guo et al. 2017."""
LOWEST, HIGHEST = 0.05, 20.0
"""Bounds of the temperature. A fit at a bound says that the pixels do not determine one, as when all of them are right."""
UNIT = 2**24
"""Confidences are summed as whole multiples of 1 / UNIT, float32's step below 1: the sums do not depend on the order of images."""
STRIP_VALUES = 2**20
"""Logits worked on at once: 4 MiB of float32, which stay in the cache."""


def sample(
    logits: np.ndarray, target: np.ndarray, *, ignore_index: int, count: int, seed: int, name: str
) -> tuple[np.ndarray, np.ndarray]:
    """Draw up to `count` labelled pixels of one image, each equally likely; (seed, name) alone decide which.

    Args:
        logits: float (K, H, W).
        target: true labels (H, W); pixels equal to `ignore_index` are never drawn.
        count: pixels to draw, at least 1; all of them where there are fewer.
        name: the image's id.

    Returns:
        The drawn logits float32 (n, K) and their labels int64 (n,), in scan order.

    Raises:
        ValueError: the sizes differ, or a label is no class.
    """
    valid = _valid(logits, target, ignore_index)
    positions = np.flatnonzero(valid)
    if len(positions) > count:
        digest = hashlib.sha256(f"calibration/{seed}/{name}".encode()).digest()
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big")))
        positions = np.sort(rng.choice(positions, count, replace=False, shuffle=False))
    drawn = logits.reshape(len(logits), -1)[:, positions].T
    return np.ascontiguousarray(drawn, np.float32), target.reshape(-1)[positions].astype(np.int64)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in LOWEST..HIGHEST with the smallest mean negative log likelihood of `labels` (Guo et al. 2017, 4.2).

    In 1 / T the likelihood is convex, so there is one minimum: the root of its derivative, or a bound. Above 1 the network was
    too sure, below 1 not sure enough.

    Args:
        logits: float (n, K), n at least 1.
        labels: integers (n,) in 0..K-1.

    Raises:
        ValueError: there is no pixel, or a logit is not finite.
    """
    assert logits.ndim == 2 and labels.shape == logits.shape[:1], f"{logits.shape} logits for {labels.shape} labels"
    if not len(labels):
        raise ValueError("no labelled pixel to fit the temperature on: are all masks of val ignored?")
    if not np.isfinite(logits).all():
        raise ValueError("the network's answer holds logits that are not finite, so its confidence is undefined")

    def slope(inverse: float) -> float:
        """The derivative of the mean negative log likelihood after 1 / T: the expected logit less that of the true class."""
        total = 0.0
        for start in range(0, len(labels), STRIP_VALUES // logits.shape[1] + 1):
            z = logits[start : start + STRIP_VALUES // logits.shape[1] + 1].astype(np.float64)
            true = np.take_along_axis(z, labels[start : start + len(z), None], axis=1)[:, 0]
            p = np.exp(inverse * (z - z.max(axis=1, keepdims=True)))
            total += float(((p * z).sum(axis=1) / p.sum(axis=1) - true).sum())
        return total / len(labels)

    if slope(1 / HIGHEST) >= 0:
        return HIGHEST
    if slope(1 / LOWEST) <= 0:
        return LOWEST
    return 1 / float(brentq(slope, 1 / HIGHEST, 1 / LOWEST, xtol=1e-9, rtol=1e-9))


def confidence(logits: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """The probability of the most likely class of each pixel, max softmax(logits / T): (K, H, W) gives float32 (H, W) in 1/K..1.

    The largest logit is taken off before exp, so that no logit is too large.
    """
    found = np.empty(logits.shape[1:], np.float32)
    for rows, shifted in _strips(logits):
        found[rows] = _largest(shifted, temperature)
    return found


def as_bytes(probability: np.ndarray) -> np.ndarray:
    """Probabilities as uint8 of the same shape, round(255 p): what `predictions.arrow` keeps as `confidence`."""
    return np.rint(probability * np.float32(255)).astype(np.uint8)


class Reliability:
    """How often pixels of a confidence are right, in `BINS` bins; images are added one by one, in any order.

    `counts`, `correct` and `sums` are int64 (BINS,): pixels, those that are right, and their confidence in units of 1 / UNIT.
    """

    def __init__(self) -> None:
        self.counts, self.correct, self.sums = (np.zeros(BINS, np.int64) for _ in range(3))

    def add(self, probability: np.ndarray, correct: np.ndarray) -> None:
        """Count pixels: confidence in 0..1 and whether the label is right, bool, of equal shape. Leave ignored pixels out."""
        assert probability.shape == correct.shape, f"{probability.shape} confidences, {correct.shape} answers"
        units = np.rint(probability.reshape(-1) * np.float32(UNIT)).astype(np.int32)
        assert not units.size or (0 <= units.min() and units.max() <= UNIT), "a confidence is not in 0..1"
        bins = np.maximum(units * BINS - 1, 0) // UNIT  # 15 * 2^24 fits in int32
        both = np.bincount(bins + BINS * correct.reshape(-1), minlength=2 * BINS)
        self.counts += both[:BINS] + both[BINS:]
        self.correct += both[BINS:]
        # bincount adds up in float64, which holds these whole numbers exactly for images of up to 2^29 pixels.
        self.sums += np.bincount(bins, weights=units, minlength=BINS).astype(np.int64)

    @property
    def gaps(self) -> np.ndarray:
        """float64 (BINS,): mean confidence less the share that is right. Positive is too sure; NaN where a bin is empty."""
        gaps = np.full(BINS, np.nan)
        return np.divide(self.sums / UNIT - self.correct, self.counts, out=gaps, where=self.counts > 0)

    @property
    def ece(self) -> float:
        """Expected calibration error, 0..1: the mean of the bins' |gap|, weighted by pixels; NaN without pixels (eq. 3)."""
        total = int(self.counts.sum())
        return float(np.abs(self.sums / UNIT - self.correct).sum() / total) if total else float("nan")

    @property
    def mce(self) -> float:
        """Maximum calibration error, 0..1: the largest |gap| of a bin with pixels; NaN without pixels (eq. 5)."""
        gaps = self.gaps
        return float(np.nanmax(np.abs(gaps))) if self.counts.any() else float("nan")

    def document(self) -> dict[str, Any]:
        """For JSON: pixels, accuracy, mean_confidence, ece, mce, and one entry per bin; what is undefined is None."""
        pixels = int(self.counts.sum())
        rows = zip(self.counts.tolist(), self.correct.tolist(), self.sums.tolist(), strict=True)
        return {
            "pixels": pixels,
            "accuracy": int(self.correct.sum()) / pixels if pixels else None,
            "mean_confidence": int(self.sums.sum()) / UNIT / pixels if pixels else None,
            "ece": self.ece if pixels else None,
            "mce": self.mce if pixels else None,
            "bins": [
                {
                    "low": i / BINS,
                    "high": (i + 1) / BINS,
                    "pixels": count,
                    "confidence": total / UNIT / count if count else None,
                    "accuracy": right / count if count else None,
                }
                for i, (count, right, total) in enumerate(rows)
            ],
        }


class Calibration:
    """The reliability of one model on a split, as it is (`before`) and with its temperature (`after`), image by image."""

    def __init__(self, *, temperature: float, ignore_index: int) -> None:
        assert LOWEST <= temperature <= HIGHEST, f"temperature {temperature} is not in {LOWEST}..{HIGHEST}"
        self.temperature, self._ignore_index = temperature, ignore_index
        self.before, self.after = Reliability(), Reliability()

    def add(self, logits: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Count one image, float (K, H, W) against (H, W), and return its confidence with the temperature, float32 (H, W).

        Raises:
            ValueError: the sizes differ, or a label is no class.
        """
        valid = _valid(logits, target, self._ignore_index)
        before, after = np.empty(target.shape, np.float32), np.empty(target.shape, np.float32)
        right = np.empty(target.shape, bool)
        for rows, shifted in _strips(logits):
            labels = np.zeros(shifted.shape[1:], np.uint16)
            for k in range(len(shifted) - 1, 0, -1):  # several times as fast as argmax, and the first of equals wins here too
                labels[shifted[k] == 0] = k
            labels[shifted[0] == 0] = 0
            right[rows] = labels == target[rows]
            before[rows] = _largest(shifted, 1.0)
            after[rows] = _largest(shifted, self.temperature)
        self.before.add(before[valid], right[valid])
        self.after.add(after[valid], right[valid])
        return after

    def document(self) -> dict[str, Any]:
        """The content of calibration.json: temperature, its bounds, and `Reliability.document` of before and after."""
        return {
            "temperature": self.temperature,
            "bounds": [LOWEST, HIGHEST],
            "before": self.before.document(),
            "after": self.after.document(),
        }


def classwise_ece(logits: np.ndarray, labels: np.ndarray, *, temperature: float = 1.0) -> np.ndarray:
    """The calibration error of every class's own probability: float64 (K,), whose mean is the static calibration error.

    For class k all n pixels are binned by their probability of k, and the share of pixels that are k is compared with the mean
    probability, weighted by pixels (Nixon et al. 2019, arXiv 1904.01685, section 3). Meant for pixels from `sample`.

    Args:
        logits: float (n, K); labels: integers (n,) in 0..K-1.

    Returns:
        float64 (K,); all NaN without pixels.
    """
    scaled = (logits - logits.max(axis=1, keepdims=True, initial=-np.inf)) / np.float32(temperature)
    p = np.exp(scaled)
    p /= p.sum(axis=1, keepdims=True)
    errors = np.empty(logits.shape[1])
    for k in range(logits.shape[1]):
        of_class = Reliability()
        of_class.add(np.minimum(p[:, k], 1), labels == k)
        errors[k] = of_class.ece
    return errors


def _valid(logits: np.ndarray, target: np.ndarray, ignore_index: int) -> np.ndarray:
    """bool (H, W): where a label is; ValueError if it cannot belong to these logits."""
    if logits.ndim != 3 or logits.shape[1:] != target.shape:
        raise ValueError(f"logits have shape {logits.shape}, the target {target.shape}: they must be (K, H, W) and (H, W)")
    valid: np.ndarray = target != ignore_index
    wrong = valid & (target >= len(logits))
    if wrong.any():
        raise ValueError(f"the target holds label {target[wrong][0]}, but there are {len(logits)} classes")
    return valid


def _strips(logits: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """(rows, float32 (K, rows, W)) from top to bottom: the logits less the largest of their pixel, which is 0 then."""
    classes, height, width = logits.shape
    rows = max(1, STRIP_VALUES // max(1, classes * width))
    for top in range(0, height, rows):
        part = slice(top, min(top + rows, height))
        strip = logits[:, part].astype(np.float32, copy=False)
        yield part, strip - strip.max(axis=0)


def _largest(shifted: np.ndarray, temperature: float) -> np.ndarray:
    """The largest probability, float32 (rows, W), of a strip of `_strips`."""
    scaled = shifted * np.float32(1 / temperature)
    return np.float32(1) / np.exp(scaled, out=scaled).sum(axis=0)
