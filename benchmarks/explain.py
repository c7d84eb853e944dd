"""What explaining a model costs beside evaluating it: `python -m benchmarks.explain`. The target is 5 times.

100 drawn images of 360 x 480 pixels, and a U-Net of width 16 that learned from other ones for a minute, so that its errors are a
learner's. Evaluating is decoding, predicting and counting every image; explaining is what the stage does but for drawing its page:
60 regions on the deepest layer. One run of each on one thread, so on a busy machine the ratio moves by some per cent.
"""

import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from segpipe import components, confusion, inference
from segpipe.datasets import scenes
from segpipe.failures.explain import explain, write_explanation
from segpipe.shards import Sample, Split, SplitWriter, encode_image, encode_mask

SIZE, IMAGES, REGIONS = (360, 480), 100, 60
STEPS, BATCH, PATCH = 150, 8, (128, 160)
NAMES = [c.name for c in scenes.CLASSES]
LOOK = {"mean": (0.45,) * 3, "std": (0.25,) * 3}
TARGET = 5


def drawn(number: int, *, size: tuple[int, int], odds: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([size[0], number])
    canvas, _ = scenes.draw(rng, height=size[0], width=size[1], odds=odds)
    return canvas.finish(rng), canvas.mask


def trained(architecture: object) -> nn.Module:
    """A network that has seen STEPS batches, in eval mode."""
    torch.manual_seed(0)
    model: nn.Module = architecture.build(num_classes=len(NAMES), padding="same", norm="batch", width=16, dropout=0.0)  # type: ignore[attr-defined]
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(STEPS):
        pairs = [drawn(BATCH * step + i, size=PATCH, odds=scenes.BIAS) for i in range(BATCH)]
        x = torch.cat([inference.normalise(image, **LOOK) for image, _ in pairs])
        y = torch.from_numpy(np.stack([mask for _, mask in pairs])).long()
        loss = F.cross_entropy(model(x)["out"], y, ignore_index=255)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]


def written(folder: Path, count: int) -> Split:
    folder.mkdir()
    with SplitWriter(folder, "test") as writer:
        for number in range(count):
            image, mask = drawn(10**6 + number, size=SIZE, odds=0.5)
            encoded = {"image": encode_image(image), "mask": encode_mask(mask), "height": SIZE[0], "width": SIZE[1]}
            writer.write(Sample(id=f"{number:04d}", group="", source="", **encoded))
    return Split(folder, "test")


class Told(dict[str, np.ndarray]):
    """Predictions that know a confidence, as those of an evaluation do."""

    def confidence(self, name: str) -> np.ndarray:
        return np.full(self[name].shape, 200, np.uint8)


def evaluated(model: nn.Module, split: Split) -> tuple[Told, float]:
    predictions = Told()
    start = time.process_time()
    for row, name in enumerate(split.ids):
        image, mask = split.arrays(row)
        predictions[name] = inference.predict_labels(model, image, **LOOK)
        confusion.count(mask, predictions[name], num_classes=len(NAMES), ignore_index=255)
    return predictions, time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    architecture = components.load("architectures", "unet")
    model = trained(architecture)
    layers = dict(list(architecture.cam_layers(model).items())[:1])
    begun: list[tuple[str, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        # What is slow at first (allocations, kernels that are compiled once per machine) is in neither: a few images go before.
        for name, count in (("few", 4), ("all", IMAGES)):
            split = written(Path(temporary) / name, count)
            predictions, plain = evaluated(model, split)
            begun.clear()
            explanation = explain(
                model,
                split,
                predictions,
                layers=layers,
                grids=architecture.cam_grid(model),
                class_names=NAMES,
                ignore_index=255,
                regions=REGIONS,
                on_step=lambda step: begun.append((step, time.process_time())),
                **LOOK,
            )
        begun.append(("files", time.process_time()))
        write_explanation(Path(temporary) / "failures", explanation)
        begun.append(("", time.process_time()))
    summary = explanation.summary
    seconds = {step: after - at for (step, at), (_, after) in zip(begun, begun[1:], strict=False)}
    total = sum(seconds.values())
    shown = explanation.regions.loc[explanation.regions["chosen"], "id"].nunique()
    print(
        f"{IMAGES} images of {SIZE[0]} x {SIZE[1]}, mIoU {100 * summary['miou']:.1f} %, {summary['regions']} error regions;",
        end=" ",
    )
    print(f"{summary['chosen']} of them on {shown} images explained, and {len(explanation.controls)} controls")
    print(f"evaluating  {plain:7.2f} s  ({1000 * plain / IMAGES:.0f} ms an image)")
    print(f"explaining  {total:7.2f} s")
    for step, spent in seconds.items():
        print(f"  {step:<10}{spent:7.2f} s  {spent / plain:5.2f} x")
    print(f"ratio {total / plain:.2f} (target: at most {TARGET})")


if __name__ == "__main__":
    main()
