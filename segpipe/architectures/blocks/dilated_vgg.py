"""VGG16 at an output stride of 8, with "large field of view" heads: DeepLab v1 and v2 (Chen et al. 2014, arXiv 1412.7062; 2016,
arXiv 1606.00915).

All five poolings are 3x3 with padding 1 and round up; the last two do not stride, and the fifth stage has dilation 2 instead.
Sides of 8k + 1 keep every cell on a pixel: 321, 161, 81, 41, 41, 41.
"""

import torch
from torch import nn

from segpipe.architectures.blocks import vgg

STRIDES = (2, 2, 2, 1, 1)
DILATIONS = (1, 1, 1, 1, 2)


class DilatedVGG(nn.Module):
    """(N, in_channels, H, W) -> (N, 8 * width, h, w) after the fifth pooling, with h = (H + 14) // 8 and w = (W + 14) // 8."""

    def __init__(self, *, in_channels: int, width: int = 64, norm: str = "none") -> None:
        super().__init__()
        self.stages = vgg.stages(in_channels=in_channels, width=width, norm=norm, dilations=DILATIONS)
        self.pools = nn.ModuleList(nn.MaxPool2d(3, stride=stride, padding=1, ceil_mode=True) for stride in STRIDES)
        self.deep_channels = vgg.stage_channels(width)[-1]
        self.apply(vgg.initialise)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage, pool in zip(self.stages, self.pools, strict=True):
            x = pool(stage(x))
        return x

    def cam_layers(self) -> dict[str, nn.Module]:
        """The last two stages, deepest first; both are at stride 8."""
        return {"stage5": self.stages[4], "stage4": self.stages[3]}


def fc6_fc7(in_channels: int, fc: int, *, rate: int, norm: str = "none") -> tuple[nn.Sequential, nn.Sequential]:
    """VGG's fully connected layers as a 3x3 convolution with dilation `rate` and a 1x1, each with ReLU and dropout 0.5.

    `norm` = `batch` puts batch normalisation before each ReLU.
    """
    fc6 = _fully_connected(nn.Conv2d(in_channels, fc, 3, padding=rate, dilation=rate), norm)
    return fc6, _fully_connected(nn.Conv2d(fc, fc, 1), norm)


def score(in_channels: int, num_classes: int, *, kernel: int = 1, rate: int = 1) -> nn.Conv2d:
    """The layer that gives logits, as DeepLab v1 and v2 start it: weights N(0, 0.01), biases zero."""
    layer = nn.Conv2d(in_channels, num_classes, kernel, padding=kernel // 2 * rate, dilation=rate)
    nn.init.normal_(layer.weight, std=0.01)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


def _fully_connected(conv: nn.Conv2d, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = [conv]
    if norm == "batch":
        layers.append(nn.BatchNorm2d(conv.out_channels))
    result = nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Dropout(0.5))
    result.apply(vgg.initialise)
    return result
