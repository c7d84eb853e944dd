"""What evaluation costs beside predicting: `python -m benchmarks.evaluate`. Prints ratios and the peak memory of the process.

A dataset of drawn scenes goes through the U-Net of presets/camvid.yaml (width 16, random weights) in turn in two ways: its labels
alone (`inference.predict_labels`), and everything that `evaluate` measures in the main mode: labels, confidence with its fitted
temperature, calibration, metrics of masks, bands around contours, predictions on disk. Frames of CamVid's size are shown to the
network at half of it, as the preset does, and as they are; 1024 x 2048 pixels of 19 classes show that memory stays that of one
image. Random weights make ragged labels: the most work for contours. Seconds are of the processor, one thread, so that other
programs do not disturb. Modes and corruptions cost what their forward passes cost, and are not in it; nor are the other files,
which are written once and printed apart.
"""

import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch

from segpipe import components, results
from segpipe.architectures import unet
from segpipe.evaluation import evaluate
from segpipe.evaluation_files import write_evaluation
from segpipe.inference import predict_labels
from segpipe.shards import ClassInfo, Sample, Split, SplitWriter, encode_image, encode_mask

MEAN, STD = [0.45, 0.45, 0.45], [0.27, 0.27, 0.27]
SETS = (
    # height, width, what the network sees, classes, images of test and of val, rounds
    (360, 480, (180, 240), 11, 34, 8, 3),
    (360, 480, None, 11, 34, 8, 1),
    (1024, 2048, None, 19, 8, 1, 1),
)


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    metrics = {name: components.load("metrics", name) for name in components.names("metrics")}
    for height, width, size, classes, tests, vals, rounds in SETS:
        torch.manual_seed(0)
        model = unet.build(num_classes=classes, padding="same", norm="batch", width=16, dropout=0.0)
        model.to(memory_format=torch.channels_last).eval()
        rows = [ClassInfo(name=f"class {k}", colour=(k, k, k)) for k in range(classes)]
        seconds: dict[str, list[float]] = {"labels": [], "evaluation": [], "files": []}
        peaks = {}
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            for name, count in (("test", tests), ("val", vals)):
                write_split(folder, name, count, (height, width), classes)
            test, val = Split(folder, "test"), Split(folder, "val")
            for _ in range(rounds):
                with timed(seconds["labels"]):
                    for index in range(len(test)):
                        predict_labels(model, test.arrays(index)[0], mean=MEAN, std=STD, size=size)
                peaks["labels"] = peak()
                with timed(seconds["evaluation"]), results.PredictionWriter(folder / "out") as writer:
                    found = evaluate(
                        model,
                        test,
                        classes=rows,
                        ignore_index=255,
                        mean=MEAN,
                        std=STD,
                        size=size,
                        val=val,
                        metrics=metrics,
                        on_answer=writer.write,
                    )
                peaks["evaluation"] = peak()
                with timed(seconds["files"]):
                    write_evaluation(folder / "out", found)
        median = {name: statistics.median(values) for name, values in seconds.items()}
        each = {name: 1000 * value / tests for name, value in median.items()}
        seen = "as they are" if size is None else f"seen at {size[0]} x {size[1]}"
        print(
            f"{tests} images of {height} x {width}, {classes} classes, {seen}:"
            f" labels {each['labels']:.0f} ms each, evaluation {each['evaluation']:.0f} ms,"
            f" ratio {each['evaluation'] / each['labels']:.2f};"
            f" files {median['files']:.1f} s once; peak {peaks['labels']:.0f} and {peaks['evaluation']:.0f} MB"
        )


@contextmanager
def timed(into: list[float]) -> Iterator[None]:
    """Append the processor's seconds that the block takes."""
    start = time.process_time()
    yield
    into.append(time.process_time() - start)


def peak() -> float:
    """The most memory that this process has had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def write_split(folder: Path, name: str, count: int, size: tuple[int, int], classes: int) -> None:
    """Images of `size` (height, width) with patches of all classes whose contours are smooth, a little of it ignored."""
    rng = np.random.default_rng(len(name))
    with SplitWriter(folder, name) as writer:
        for index in range(count):
            fields = rng.normal(size=(size[0] // 16, size[1] // 16, classes)).astype(np.float32)
            fields = np.dstack([cv2.resize(f, size[::-1], interpolation=cv2.INTER_CUBIC) for f in fields.transpose(2, 0, 1)])
            mask = fields.argmax(axis=2).astype(np.uint8)
            image = rng.integers(40, 216, (classes, 3))[mask] + rng.normal(0, 12, (*size, 3))
            mask[:8] = 255
            writer.write(
                Sample(
                    id=f"{name} {index}",
                    image=encode_image(image.clip(0, 255).astype(np.uint8)),
                    mask=encode_mask(mask),
                    height=size[0],
                    width=size[1],
                    group="",
                    source="",
                )
            )


if __name__ == "__main__":
    main()
