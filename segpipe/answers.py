"""A network's answer to one image: its labels, how sure it is of them, and how long it took, without all logits in memory at once.

Logits come strip by strip; each strip becomes labels and confidence before the next is made. Only the CRF needs all of them.
Confidence is the network's also where a CRF has the last word on the labels: what mean field returns is no calibrated probability.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from segpipe import calibration
from segpipe.calibration import Calibration
from segpipe.crf_parameters import CrfParameters
from segpipe.inference import logit_strips, most_likely
from segpipe.shards import Split

FIT_IMAGES, FIT_PIXELS = 100, 20_000
"""The temperature is fitted on at most so many images of val, and so many of their pixels."""
FIT_SHARE, FIT_LEAST = 0.1, 5
"""But on no more images than this share of the test split, if that is at least so many: evaluation must not take twice as long."""
BOUND = 1e30
"""Stands for a logit that is not finite; differences of two such are still finite."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One image's labels uint8/uint16 (H, W), with the CRF where there is one, and the `network`'s own, without it.

    `confidence` is uint8 (H, W), 255 times the probability of the network's own label. Seconds are from the decoded image to its
    labels, `network_seconds` without the CRF; what else is measured is in neither.
    """

    labels: np.ndarray
    network: np.ndarray
    confidence: np.ndarray
    seconds: float
    network_seconds: float


def answer(
    model: nn.Module,
    image: np.ndarray,
    target: np.ndarray,
    *,
    reliability: Calibration,
    crf: CrfParameters | None,
    how: Mapping[str, Any],
) -> Answer:
    """Predict `image` uint8 (H, W, 3), and count in `reliability` how its confidence fits `target` (H, W).

    `how` holds the other arguments of `segpipe.inference.predict`.

    Raises:
        ValueError: `target` has another size than the image, or a label that is no class.
    """
    if target.shape != image.shape[:2]:
        raise ValueError(f"the mask has shape {target.shape}, the image {image.shape[:2]}")
    network, confidence = np.empty(image.shape[:2], np.uint8), np.empty(image.shape[:2], np.uint8)
    whole: np.ndarray | None = None
    seconds = 0.0
    start = time.perf_counter()
    for top, strip in logit_strips(model, image, **how):
        found, logits = most_likely(strip), strip.float().cpu().numpy()
        rows = slice(top, top + len(found))
        network = network.astype(found.dtype, copy=False)
        network[rows] = found
        if crf is not None:
            whole = np.empty((len(logits), *target.shape), np.float32) if whole is None else whole
            whole[:, rows] = logits
        seconds += time.perf_counter() - start
        confidence[rows] = calibration.as_bytes(reliability.add(_finite(logits), target[rows]))
        start = time.perf_counter()
    labels, network_seconds = network, seconds + time.perf_counter() - start
    if crf is not None:
        from segpipe.crf import mean_field  # here, as its compiler takes a third of a second to import

        assert whole is not None
        labels = mean_field(whole, image, **asdict(crf)).argmax(axis=0).astype(network.dtype)
    return Answer(
        labels=labels,
        network=network,
        confidence=confidence,
        seconds=seconds + time.perf_counter() - start,
        network_seconds=network_seconds,
    )


def fitted_temperature(
    model: nn.Module, val: Split | None, *, tests: int, ignore_index: int, seed: int, how: Mapping[str, Any]
) -> tuple[float, int]:
    """The temperature that makes the network's confidence honest on val, and how many images it was fitted on.

    The images are spread evenly over val, their pixels drawn (see `FIT_IMAGES`); `tests` is the size of the test split. 1 and 0
    where val is missing, empty or without a labelled pixel: confidences are then the network's as they are.
    """
    if val is None or not len(val):
        return 1.0, 0
    count = min(len(val), FIT_IMAGES, max(FIT_LEAST, math.ceil(FIT_SHARE * tests)))
    names, images = val.ids, 0
    pixels: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for index in np.unique(np.linspace(0, len(val) - 1, count).round().astype(int)).tolist():
        image, target = val.arrays(index)
        before = len(pixels)
        for top, strip in logit_strips(model, image, **how):
            logits = _finite(strip.float().cpu().numpy())
            part = target[top : top + logits.shape[1]]
            share = math.ceil(FIT_PIXELS / count * part.size / target.size)
            drawn = calibration.sample(
                logits, part, ignore_index=ignore_index, count=share, seed=seed, name=f"{names[index]}/{top}"
            )
            if len(drawn[1]):
                pixels.append(drawn[0])
                labels.append(drawn[1])
        images += len(pixels) > before
    return (calibration.fit_temperature(np.concatenate(pixels), np.concatenate(labels)), images) if images else (1.0, 0)


def _finite(logits: np.ndarray) -> np.ndarray:
    """The same logits, with those that are not finite replaced: a network that diverged is scored, not a reason to stop."""
    if np.isfinite(logits).all():
        return logits
    return np.nan_to_num(logits, nan=-BOUND, posinf=BOUND, neginf=-BOUND)
