"""A dataset and a network that train in milliseconds."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segpipe import shards
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.augmentation import policy
from segpipe.training import data

CLASSES = tuple(shards.ClassInfo(name=n, colour=(60 * i, 80, 120)) for i, n in enumerate(("sky", "disc", "pole")))


def write_dataset(
    folder: Path, *, train: int = 10, val: int = 5, sizes: tuple[tuple[int, int], ...] = ((24, 32),), prefix: str = ""
) -> shards.DatasetInfo:
    """Bright squares of two kinds on noise; labels 0, 1, 2 and a border of ignored pixels. Sizes are taken in turn."""
    folder.mkdir(parents=True)
    digests, pixels = {}, {}
    for split, count in (("train", train), ("val", val)):
        counts = np.zeros(len(CLASSES), np.int64)
        with shards.SplitWriter(folder, split) as writer:
            for number in range(count):
                rng = np.random.default_rng([number, len(split)])
                height, width = sizes[number % len(sizes)]
                image = rng.integers(0, 80, (height, width, 3), np.uint8)
                mask = np.zeros((height, width), np.uint8)
                for label in (1, 2):
                    top, left = rng.integers(2, height - 10), rng.integers(2, width - 10)
                    mask[top : top + 8, left : left + 8] = label
                    image[top : top + 8, left : left + 8, label] += 150
                mask[:1] = 255
                counts += np.bincount(mask[mask != 255], minlength=len(CLASSES))
                writer.write(
                    shards.Sample(
                        id=f"{prefix}{split}-{number}",
                        image=shards.encode_image(image),
                        mask=shards.encode_mask(mask),
                        height=height,
                        width=width,
                        group="",
                        source="drawn",
                    )
                )
            digests[split], pixels[split] = writer.close(), counts.tolist()
    info = shards.DatasetInfo(
        name="tiny",
        classes=CLASSES,
        ignore_index=255,
        task="semantic",
        dimensions=2,
        splits={"train": train, "val": val},
        pixels=pixels,
        mean=(0.2, 0.25, 0.25),
        std=(0.1, 0.2, 0.2),
        provenance={},
        digest=shards.dataset_digest(digests, CLASSES),
    )
    shards.write_info(folder, info)
    return info


def samples(folder: Path, *, online: str = "flip", seed: int = 0, **options: tuple[int, int] | None) -> data.Samples:
    return data.Samples(
        [shards.Split(folder, "train")],
        shards.Split(folder, "val"),
        policy=policy.build(online),
        seed=seed,
        ignore_index=255,
        **options,
    )


class Net(nn.Module):
    """Convolutions that eat 2 pixels on each border, batch normalisation, dropout, and an auxiliary output while training."""

    def __init__(self, num_classes: int = 3, width: int = 8) -> None:
        super().__init__()
        self.input_rule = InputRule(multiple=2, margin=2)
        self.body = nn.Sequential(
            nn.Conv2d(3, width, 3),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(width, width, 3),
            nn.ReLU(),
        )
        self.head, self.aux = nn.Conv2d(width, num_classes, 1), nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = self.body(x)
        outputs = {"out": self.head(features)}
        if self.training:
            outputs["aux"] = self.aux(features)
        return outputs


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()
