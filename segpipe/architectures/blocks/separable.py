"""Depthwise separable convolutions with batch normalisation after both halves, as in DeepLab's TensorFlow code."""

import torch
from torch import nn


class SeparableConv(nn.Sequential):
    """3x3 depthwise, BN, [ReLU], 1x1 pointwise, BN, [ReLU]: (N, Cin, H, W) -> (N, Cout, H / stride, W / stride).

    `relu` puts a ReLU after *both* halves; without it there is none at all (Xception then applies one before).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        relu: bool,
        stride: int = 1,
        dilation: int = 1,
        eps: float = 1e-5,
    ) -> None:
        depthwise = nn.Conv2d(
            in_channels, in_channels, 3, stride=stride, padding=dilation, dilation=dilation, groups=in_channels, bias=False
        )
        layers: list[nn.Module] = [depthwise, nn.BatchNorm2d(in_channels, eps=eps)]
        if relu:
            layers.append(nn.ReLU(inplace=True))
        layers += [nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels, eps=eps)]
        if relu:
            layers.append(nn.ReLU(inplace=True))
        super().__init__(*layers)


def conv_bn_relu(in_channels: int, out_channels: int, kernel: int, *, dilation: int = 1) -> nn.Sequential:
    """A convolution without bias that keeps the size, batch normalisation (eps 1e-5) and ReLU."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def initialise(module: nn.Module) -> None:
    """He's initialisation by fan-in, which for a depthwise convolution is its nine taps; for `Module.apply`."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            with torch.no_grad():
                module.bias.zero_()
