"""The pyramid pooling of PSPNet (Zhao et al. 2017, arXiv 1612.01105), and the auxiliary head that it and EncNet train."""

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks.aspp import PooledBatchNorm
from segpipe.architectures.blocks.separable import conv_bn_relu

BINS = (1, 2, 3, 6)


class PyramidPooling(nn.Module):
    """(N, C, h, w) -> (N, 2C, h, w): x, and its means over 1, 2, 3 and 6 bins a side.

    Each grid of means is reduced to C / 4 channels by a 1x1 convolution with batch normalisation and ReLU, and enlarged with
    aligned corners. All four keep their batch normalisation, that of the single bin too.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = channels // len(BINS)
        self.levels = nn.ModuleList()
        for bins in BINS:
            norm = PooledBatchNorm(reduced) if bins == 1 else nn.BatchNorm2d(reduced)
            convolution = nn.Conv2d(channels, reduced, 1, bias=False)
            self.levels.append(nn.Sequential(nn.AdaptiveAvgPool2d(bins), convolution, norm, nn.ReLU(inplace=True)))
        self.channels = channels + len(BINS) * reduced

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-2:]
        grids = [F.interpolate(level(x), size=size, mode="bilinear", align_corners=True) for level in self.levels]
        return torch.cat([x, *grids], dim=1)


def auxiliary_head(channels: int, num_classes: int, *, dropout: nn.Module) -> nn.Sequential:
    """3x3 convolution to a quarter of the channels, batch normalisation, ReLU, dropout and 1x1 classifier.

    (N, channels, h, w) -> logits (N, num_classes, h, w), from an inner stage and in training only.
    """
    return nn.Sequential(conv_bn_relu(channels, channels // 4, 3), dropout, nn.Conv2d(channels // 4, num_classes, 1))
