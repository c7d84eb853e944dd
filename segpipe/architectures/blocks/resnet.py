"""ResNet-18, -50 and -101 (He et al. 2015, arXiv 1512.03385) as trunks that keep an output stride of 8 or 16 by dilation.

Parameter names and shapes are torchvision's (`conv1`, `bn1`, `layer1.0.conv1`, `layer1.0.downsample.0`, ...), without `fc`, so that
its ImageNet weights load. As there, the stride of a bottleneck is on its 3x3 convolution.

Dilation follows DeepLab v3: where a stage may not stride any more, *every* 3x3 convolution of it is dilated, the first block's too
(torchvision gives that one the rate of the stage before). The last stage multiplies its rate by the multi-grid, block by block.
"""

from collections.abc import Sequence

import torch
from torch import nn

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
MULTI_GRID = (1, 2, 4)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; the block of ResNet-18."""

    expansion = 1

    def __init__(self, in_channels: int, channels: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, channels, stride=stride, dilation=dilation)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels, stride=1, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, channels, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut; the block of the deeper ResNets."""

    expansion = 4

    def __init__(self, in_channels: int, channels: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, self.expansion * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(self.expansion * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(in_channels, self.expansion * channels, stride=stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + self.downsample(x))


class ResNet(nn.Module):
    """(N, in_channels, H, W) -> (low-level features at stride 4, deep features at `output_stride`).

    `low_channels` and `deep_channels` are their channels: 256 and 2048 for the deeper ResNets, 64 and 512 for ResNet-18, times
    width / 64.
    """

    def __init__(
        self,
        *,
        name: str,
        in_channels: int,
        output_stride: int,
        width: int = 64,
        multi_grid: Sequence[int] = MULTI_GRID,
    ) -> None:
        super().__init__()
        block = BasicBlock if name == "resnet18" else Bottleneck
        self.conv1 = nn.Conv2d(in_channels, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        layers: list[nn.Sequential] = []
        channels, reached, rate = width, 4, 1
        for index, (depth, stride) in enumerate(zip(DEPTHS[name], (1, 2, 2, 2), strict=True)):
            if reached * stride > output_stride:
                rate, stride = rate * stride, 1
            reached *= stride
            blocks: list[nn.Module] = []
            for position in range(depth):
                grid = multi_grid[position % len(multi_grid)] if index == 3 and rate > 1 else 1
                inside = width * 2**index
                blocks.append(block(channels, inside, stride=stride if position == 0 else 1, dilation=rate * grid))
                channels = inside * block.expansion
            layers.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.low_channels, self.deep_channels = width * block.expansion, channels
        self.apply(_initialise)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        low = self.layer1(x)
        return low, self.layer4(self.layer3(self.layer2(low)))

    def cam_layers(self) -> dict[str, nn.Module]:
        """The last two stages, deepest first."""
        return {"layer4": self.layer4, "layer3": self.layer3}


def _conv3x3(in_channels: int, out_channels: int, *, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


def _shortcut(in_channels: int, out_channels: int, *, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
