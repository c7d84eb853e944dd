"""Atrous spatial pyramid pooling of DeepLab v3 and v3+ (Chen et al. 2017, arXiv 1706.05587; 2018, arXiv 1802.02611)."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks.separable import SeparableConv, conv_bn_relu

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
"""Dilations of the three 3x3 branches at each output stride: half the stride needs twice the rate for the same field of view."""


class PooledBatchNorm(nn.BatchNorm2d):
    """Batch normalisation of 1x1 maps. One value per channel has no variance: a batch of one image uses the running statistics."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


class ASPP(nn.Module):
    """(N, in_channels, h, w) -> (N, channels, h, w): a 1x1, three dilated 3x3 and a whole-image branch, concatenated and mixed.

    `separable` makes the dilated branches depthwise separable, as DeepLab v3+ does; v3 has full ones.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        *,
        rates: Sequence[int],
        separable: bool,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([conv_bn_relu(in_channels, channels, 1)])
        for rate in rates:
            self.branches.append(
                SeparableConv(in_channels, channels, relu=True, dilation=rate)
                if separable
                else conv_bn_relu(in_channels, channels, 3, dilation=rate)
            )
        self.pooling = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, channels, 1, bias=False),
            PooledBatchNorm(channels),
            nn.ReLU(inplace=True),
        )
        self.project = conv_bn_relu((len(rates) + 2) * channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [self.pooling(x).expand(-1, -1, x.shape[-2], x.shape[-1])]
        features += [branch(x) for branch in self.branches]
        return self.dropout(self.project(torch.cat(features, dim=1)))
