"""The dense CRF's fast filter against its exact one, and what an image costs: `python -m benchmarks.crf`. Prints time and ratio.

First one image of 120 x 160 through both, with the label agreement; then images of the size of CamVid, 360 x 480 with 11 classes,
through the fast one, for each published set of numbers. The picture is drawn: discs with shading and noise, and a blurred and noisy
answer to them. The fast filter's time depends on how many colours an image has; street scenes lie around this one.
"""

import statistics
import time
from dataclasses import asdict, replace

import cv2
import numpy as np

from segpipe.crf import mean_field
from segpipe.crf_parameters import PARAMETERS, CrfParameters

CLASSES, SMALL, CAMVID, ROUNDS = 11, (120, 160), (360, 480), 5
SET = "deeplabv2-resnet101"


def main() -> None:
    numbers = PARAMETERS[SET]
    logits, image = scene(*SMALL)
    refined(logits, image, replace(numbers, filter="fast"))  # compiles, or loads what was compiled
    fast_labels, fast = refined(logits, image, replace(numbers, filter="fast"), rounds=ROUNDS)
    exact_labels, exact = refined(logits, image, replace(numbers, filter="exact"))
    before = logits.argmax(axis=0)
    print(f"{SET}, {SMALL[0]} x {SMALL[1]}, {CLASSES} classes: exact {exact:.2f} s, fast {fast:.3f} s, ratio {exact / fast:.0f} x")
    print(
        f"  the same label at {100 * np.mean(fast_labels == exact_labels):.2f} % of the pixels;"
        f" the exact CRF changes {100 * np.mean(exact_labels != before):.1f} %"
    )
    logits, image = scene(*CAMVID)
    for name, numbers in PARAMETERS.items():
        _, seconds = refined(logits, image, numbers, rounds=ROUNDS)
        print(f"{name:24} {CAMVID[0]} x {CAMVID[1]}, {CLASSES} classes, fast: {1000 * seconds:6.0f} ms")


def refined(logits: np.ndarray, image: np.ndarray, numbers: CrfParameters, *, rounds: int = 1) -> tuple[np.ndarray, float]:
    """The labels, and the median of the seconds they took."""
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        q = mean_field(logits, image, **asdict(numbers))
        seconds.append(time.perf_counter() - start)
    return q.argmax(axis=0), statistics.median(seconds)


def scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits float32 (K, H, W) and the image."""
    rng = np.random.default_rng(0)
    i, j = np.mgrid[:height, :width]
    truth = np.zeros((height, width), np.int64)
    for number in range(4 * CLASSES):
        row, column, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(0.05, 0.25) * height
        truth[(i - row) ** 2 + (j - column) ** 2 < radius**2] = number % CLASSES
    shading = 40 * np.sin(i / height * 9 + j / width * 7)[..., None]
    image = rng.integers(40, 216, (CLASSES, 3))[truth] + shading + rng.normal(0, 3, (height, width, 3))
    clear = np.stack([cv2.GaussianBlur((truth == k).astype(np.float64), (0, 0), height / 50) for k in range(CLASSES)])
    noise = np.stack([cv2.GaussianBlur(rng.normal(0, 1, truth.shape), (0, 0), 1.5) for _ in range(CLASSES)])
    return (4 * clear + 3 * noise).astype(np.float32), image.clip(0, 255).astype(np.uint8)


if __name__ == "__main__":
    main()
