"""Boxes on green and on red ground, and networks that tell crate from chest by the ground, by the box, or by a third class."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segpipe import resampling
from segpipe.architectures.blocks.input_rule import InputRule
from segpipe.failures.context import Context
from segpipe.failures.look import Viewer
from segpipe.inference import predict_labels
from segpipe.shards import Sample, Split, SplitWriter, encode_image, encode_mask

GROUND, CRATE, CHEST, FLAG = range(4)
NAMES = ("ground", "crate", "chest", "flag")
SIZE = (48, 64)
OBJECT_BLUE = 180


class Judge(nn.Module):
    """Boxes are blue, flags have no green. `by` is what a box is called after: `ground` (crate on green, chest on red), `object`
    (crate where the box itself is red), `flag` (crate where a flag is in the image). Counts its forward passes."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.input_rule = InputRule(multiple=1)
        self.by, self.passes = by, 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        self.passes += 1
        red, green, blue = (x[:, i : i + 1] for i in range(3))
        solid = torch.sigmoid((blue - 0.57) * 60)
        flag = torch.sigmoid((0.2 - green) * 60) * (1 - solid)
        if self.by == "ground":
            ground = 1 - solid - flag
            redness = ((red - green) * ground).sum(dim=(2, 3), keepdim=True) / ground.sum(dim=(2, 3), keepdim=True)
            crate = -3 * torch.tanh(10 * redness)
        elif self.by == "flag":
            crate = 3 - 6 * torch.sigmoid(40 - flag.sum(dim=(2, 3), keepdim=True))
        else:
            near = nn.functional.avg_pool2d(torch.cat([red * solid, solid], dim=1), 13, stride=1, padding=6)
            crate = (30 * (near[:, :1] / near[:, 1:].clamp(min=1e-3) - 0.6)).clamp(-4, 4)
        thing = 12 * (solid - 0.5)
        zero = torch.zeros_like(red)
        return {"out": torch.cat([-thing + zero, thing + crate, thing - crate, 24 * (flag - 0.5)], dim=1)}


def write_split(folder: Path, *, images: int = 40, seed: int = 0, clear: float = 0.25) -> Split:
    """A test split: 2 or 3 boxes per image on green or red ground, half of the images with a flag; classes are independent of both.

    A crate is redder than a chest, but for noise of `clear` times their distance (the sd).
    """
    rng = np.random.default_rng(seed)
    with SplitWriter(folder, "test") as writer:
        for i in range(images):
            noise = rng.integers(-6, 7, (*SIZE, 1))
            image = (np.array([90, 140, 40] if rng.random() < 0.5 else [150, 95, 40]) + rng.integers(-8, 9, 3)) + noise
            mask = np.zeros(SIZE, np.uint8)
            for slot in rng.permutation(6)[: int(rng.integers(2, 4))]:
                y, x = 1 + 26 * (slot // 3) + int(rng.integers(0, 4)), 3 + 20 * (slot % 3) + int(rng.integers(0, 5))
                kind = CRATE if rng.random() < 0.5 else CHEST
                own = 153 + (30 if kind == CRATE else -30) + 60 * clear * rng.standard_normal()
                image[y : y + 13, x : x + 13] = [int(np.clip(own, 0, 255)), 120, OBJECT_BLUE]
                mask[y : y + 13, x : x + 13] = kind
            if rng.random() < 0.5:
                free = mask[20:24] == GROUND
                image[20:24][free], mask[20:24][free] = [200, 10, 60], FLAG
            encoded = encode_image(image.clip(0, 255).astype(np.uint8))
            sample = Sample(
                id=f"im{i:03d}", image=encoded, mask=encode_mask(mask), height=SIZE[0], width=SIZE[1], group="", source=""
            )
            writer.write(sample)
    return Split(folder, "test")


def context_of(split: Split, model: Judge, *, predictions: dict[str, np.ndarray] | None = None, seed: int = 0) -> Context:
    """The context of `model`'s own predictions, or of given ones."""
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if predictions is None:
        model.eval()
        predictions = {name: predict_labels(model, split.arrays(i)[0], mean=mean, std=std) for i, name in enumerate(split.ids)}
    return Context(
        split=split,
        predictions=predictions,
        viewer=Viewer(model=model.eval(), layers={}, grids={}, mean=mean, std=std, size=None, device="cpu"),
        class_names=NAMES,
        ignore_index=255,
        units=resampling.units_of(split.column("group"))[0],
        seed=seed,
    )
