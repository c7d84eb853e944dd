"""Small networks with known answers."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segpipe.architectures.blocks.cam_grid import CamGrid
from segpipe.architectures.blocks.input_rule import InputRule


class Golden(nn.Module):
    """The network of golden.json: its parameters are sines, its target layer `pool` is 4x4x4."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2, self.c3 = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 3, 1)
        self.pool = nn.MaxPool2d(2)
        self.double()
        with torch.no_grad():
            for k, parameter in enumerate(self.parameters()):
                i = torch.arange(parameter.numel(), dtype=torch.float64)
                parameter.copy_((0.5 * torch.sin(0.6 * i + k + 1)).reshape(parameter.shape))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.pool(F.relu(self.c1(x)))
        x = self.c3(F.relu(self.c2(x), inplace=True))
        return {"out": F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)}


def golden_input() -> Tensor:
    return torch.sin(0.37 * torch.arange(3 * 8 * 8, dtype=torch.float64)).reshape(1, 3, 8, 8)


STRIDE = 4
GRIDS = {"pooled": CamGrid(STRIDE, 0), "spread": CamGrid(STRIDE, 0)}


class Reader(nn.Module):
    """Reads the class off the red channel: logits are bumps around 255 * red / step for each class, at a coarse stride.

    `pooled` (the image's red averaged over STRIDE pixels) is the layer to map. The network answers at that stride.
    """

    def __init__(self, *, classes: int, rule: InputRule | None = None) -> None:
        super().__init__()
        self.input_rule = rule or InputRule(multiple=STRIDE, minimum=STRIDE)
        self.pooled, self.spread, self.head = nn.AvgPool2d(STRIDE), nn.Conv2d(1, classes, 1), nn.Conv2d(classes, classes, 1)
        with torch.no_grad():
            levels = torch.linspace(0, 1, classes)
            self.spread.weight.copy_((2 * levels).view(-1, 1, 1, 1))
            self.spread.bias.copy_(-(levels**2))
            self.head.weight.copy_(torch.eye(classes).view(classes, classes, 1, 1))
            self.head.bias.zero_()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": self.head(self.spread(self.pooled(x[:, :1])))}


def blobs(rng: np.random.Generator, *, size: tuple[int, int], classes: int, cell: int = 8) -> Any:
    """uint8 labels in patches of `cell` pixels."""
    coarse = rng.integers(0, classes, (-(-size[0] // cell), -(-size[1] // cell)))
    return np.kron(coarse, np.ones((cell, cell), int))[: size[0], : size[1]].astype(np.uint8)
