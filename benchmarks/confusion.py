"""Confusion counts of 1024 x 2048 label maps against torchmetrics: `python -m benchmarks.confusion`.

19 classes, 255 ignored, uint8. The three take turns, so that whatever else the machine does hits all alike; medians and ratios
are printed, and the counts are asserted to be equal. Two kinds of labels: large patches with a tenth of the pixels wrong, as masks
are, and noise, in which no two neighbours agree.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix

from segpipe.confusion import count

CLASSES, IGNORED, SIZE, ROUNDS = 19, 255, (1024, 2048), 25


def main() -> None:
    rng = np.random.default_rng(0)
    patches = np.kron(rng.integers(0, CLASSES, (SIZE[0] // 64, SIZE[1] // 64)), np.ones((64, 64), np.int64)).astype(np.uint8)
    noise = rng.integers(0, CLASSES, SIZE).astype(np.uint8)
    wrong = np.where(rng.random(SIZE) < 0.1, rng.integers(0, CLASSES, SIZE), patches).astype(np.uint8)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; medians of {ROUNDS} interleaved rounds")
    for kind, target, prediction in (("patches", patches, wrong), ("noise", noise, rng.permuted(noise, axis=1))):
        target = target.copy()
        target[rng.random(SIZE) < 0.05] = IGNORED
        compare(kind, target, prediction)


def compare(kind: str, target: np.ndarray, prediction: np.ndarray) -> None:
    """Time the three on one pair, assert that they agree, and print milliseconds and ratios."""
    truth, predicted = torch.from_numpy(target), torch.from_numpy(prediction)

    def torchmetrics(*, validate: bool) -> np.ndarray:
        matrix = multiclass_confusion_matrix(predicted, truth, CLASSES, ignore_index=IGNORED, validate_args=validate)
        return np.asarray(matrix.numpy())

    runs: dict[str, Callable[[], np.ndarray]] = {
        "segpipe": lambda: count(target, prediction, num_classes=CLASSES, ignore_index=IGNORED),
        "torchmetrics, validate_args=False": lambda: torchmetrics(validate=False),
        "torchmetrics, validate_args=True (its default)": lambda: torchmetrics(validate=True),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    expected = runs["segpipe"]()
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            counts = run()
            seconds[name].append(time.perf_counter() - start)
            assert (counts == expected).all(), f"{name} counts otherwise"
    ours = statistics.median(seconds["segpipe"])
    for name, values in seconds.items():
        median = statistics.median(values)
        print(f"{kind:8} {name:48} {1000 * median:7.2f} ms   {median / ours:5.1f} x")


if __name__ == "__main__":
    main()
