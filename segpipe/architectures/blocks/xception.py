"""Aligned Xception-65, the trunk of DeepLab v3+ (Chen et al. 2018, arXiv 1802.02611; Chollet 2016, arXiv 1610.02357).

Entry flow: 3x3 convolutions of 32 (stride 2) and 64 channels, then blocks of 128, 256 and 728 that halve the resolution in their
*last* separable convolution. Middle flow: 16 blocks of 728. Exit flow: a block of 728, 1024, 1024 and one of 1536, 1536, 2048 that
has no shortcut. 37,867,312 parameters.

Traps: every block but the last applies a ReLU *before* each separable convolution and none inside it, and its shortcut takes the
input from before that ReLU; the last block has none before and one after each half. The low-level features are those of the
*second* separable convolution of the second entry block, before that block halves the resolution. Batch normalisation has eps 1e-3.
"""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks.separable import SeparableConv, initialise

EPS = 1e-3
MIDDLE_BLOCKS = 16


class XceptionBlock(nn.Module):
    """Three separable convolutions, the stride in the last, and a `conv`, `sum` or `none` shortcut."""

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        *,
        shortcut: str,
        stride: int = 1,
        dilations: Sequence[int] = (1, 1, 1),
        relu_inside: bool = False,
    ) -> None:
        super().__init__()
        self.relu_inside = relu_inside
        before = (in_channels, *channels[:-1])
        self.convs = nn.ModuleList(
            SeparableConv(b, c, relu=relu_inside, stride=stride if i == 2 else 1, dilation=d, eps=EPS)
            for i, (b, c, d) in enumerate(zip(before, channels, dilations, strict=True))
        )
        self.has_sum = shortcut != "none"
        self.shortcut: nn.Module = nn.Identity()
        if shortcut == "conv":
            conv = nn.Conv2d(in_channels, channels[-1], 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(channels[-1], eps=EPS))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the block's output and the output of its second separable convolution."""
        inner: list[torch.Tensor] = []
        out = x
        for conv in self.convs:
            out = conv(out if self.relu_inside else F.relu(out))
            inner.append(out)
        return (out + self.shortcut(x) if self.has_sum else out), inner[1]


class Xception65(nn.Module):
    """(N, in_channels, H, W) -> (low-level features 256 x H/4 x W/4, deep features 2048 at `output_stride`); channels scale
    with width / 64."""

    def __init__(self, *, in_channels: int, output_stride: int, width: int = 64, multi_grid: Sequence[int] = (1, 1, 1)) -> None:
        super().__init__()

        def scaled(*channels: int) -> tuple[int, ...]:
            return tuple(max(1, round(c * width / 64)) for c in channels)

        c32, c64, c128, c256, c728, c1024, c1536, c2048 = scaled(32, 64, 128, 256, 728, 1024, 1536, 2048)
        # A stride that the output stride forbids becomes dilation of the blocks *after* it; the exit flow's first always does.
        middle_rate = 1 if output_stride == 16 else 2
        exit_rate = 2 * middle_rate
        self.stem = nn.Sequential(
            nn.Conv2d(in_channels, c32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(c32, eps=EPS),
            nn.ReLU(inplace=True),
            nn.Conv2d(c32, c64, 3, padding=1, bias=False),
            nn.BatchNorm2d(c64, eps=EPS),
            nn.ReLU(inplace=True),
        )
        self.entry1 = XceptionBlock(c64, (c128,) * 3, shortcut="conv", stride=2)
        self.entry2 = XceptionBlock(c128, (c256,) * 3, shortcut="conv", stride=2)
        self.entry3 = XceptionBlock(c256, (c728,) * 3, shortcut="conv", stride=2 // middle_rate)
        rates = (middle_rate,) * 3
        self.middle = nn.ModuleList(XceptionBlock(c728, (c728,) * 3, shortcut="sum", dilations=rates) for _ in range(MIDDLE_BLOCKS))
        self.exit1 = XceptionBlock(c728, (c728, c1024, c1024), shortcut="conv", dilations=rates)
        self.exit2 = XceptionBlock(
            c1024,
            (c1536, c1536, c2048),
            shortcut="none",
            dilations=[exit_rate * grid for grid in multi_grid],
            relu_inside=True,
        )
        self.low_channels, self.deep_channels = c256, c2048
        self.apply(initialise)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, _ = self.entry1(self.stem(x))
        x, low = self.entry2(x)
        x, _ = self.entry3(x)
        for block in self.middle:
            x, _ = block(x)
        x, _ = self.exit1(x)
        x, _ = self.exit2(x)
        return low, x

    def cam_layers(self) -> dict[str, nn.Module]:
        """The last separable convolution of the exit flow."""
        return {"exit2": self.exit2.convs[-1]}
