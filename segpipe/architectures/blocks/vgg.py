"""The thirteen convolutions of VGG16 (Simonyan and Zisserman 2014, arXiv 1409.1556), as five stages without their poolings."""

from collections.abc import Sequence

import torch
from torch import nn

CONVS = (2, 2, 3, 3, 3)
MULTIPLIERS = (1, 2, 4, 8, 8)


def stage_channels(width: int) -> tuple[int, ...]:
    """Output channels of the five stages; `width=64` is VGG16: 64, 128, 256, 512, 512."""
    return tuple(width * multiplier for multiplier in MULTIPLIERS)


def conv_block(in_channels: int, out_channels: int, *, norm: str, padding: int = 1, dilation: int = 1) -> list[nn.Module]:
    """A 3x3 convolution with bias, batch normalisation if `norm` is `batch`, and ReLU; `padding` is in steps of `dilation`."""
    layers: list[nn.Module] = [nn.Conv2d(in_channels, out_channels, 3, padding=padding * dilation, dilation=dilation)]
    if norm == "batch":
        layers.append(nn.BatchNorm2d(out_channels))
    layers.append(nn.ReLU(inplace=True))
    return layers


def stages(
    *, in_channels: int, width: int, norm: str, first_padding: int = 1, dilations: Sequence[int] = (1, 1, 1, 1, 1)
) -> nn.ModuleList:
    """Five `nn.Sequential` of 3x3 convolutions; a 2x2 max pooling belongs after each, with the rounding that the network needs.

    `first_padding` is the padding of the very first convolution (FCN pads 100 there); `dilations` are those of the stages.
    """
    result = nn.ModuleList()
    channels, padding = in_channels, first_padding
    for convs, after, dilation in zip(CONVS, stage_channels(width), dilations, strict=True):
        layers: list[nn.Module] = []
        for _ in range(convs):
            layers += conv_block(channels, after, norm=norm, padding=padding, dilation=dilation)
            channels, padding = after, 1
        result.append(nn.Sequential(*layers))
    return result


def initialise(module: nn.Module, *, shift: float = 0.0) -> None:
    """He's initialisation for convolutions, zero biases, unit scales and `shift` for batch normalisation; for `Module.apply`."""
    with torch.no_grad():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.fill_(1.0)
            module.bias.fill_(shift)
