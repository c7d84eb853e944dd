"""Operators that enlarge feature maps: nearest, bilinear, bed of nails, max-unpooling, transposed convolution.

Max-unpooling needs the switches (argmax positions) of the pooling of the *same* level. They are flat positions in that level's
(H, W) plane, as `torch.nn.functional.max_pool2d(..., return_indices=True)` returns them.
"""

import torch
from torch import nn
from torch.nn import functional as F

from segpipe.architectures.blocks.cropping import centre_offset

UPSAMPLING = ("transposed", "nearest", "bilinear", "bed_of_nails", "max_unpool", "resize_conv")


def bed_of_nails(x: torch.Tensor, *, factor: int = 2) -> torch.Tensor:
    """(N, C, H, W) -> (N, C, factor*H, factor*W): each value at the top left of its cell, zeros elsewhere."""
    out = x.new_zeros(*x.shape[:-2], factor * x.shape[-2], factor * x.shape[-1])
    out[..., ::factor, ::factor] = x
    return out


def max_unpool(x: torch.Tensor, switches: torch.Tensor, *, size: tuple[int, int]) -> torch.Tensor:
    """(N, C, h, w) -> (N, C, *size): each value goes back to where its maximum came from, zeros elsewhere.

    `size` is the size before pooling; it cannot be derived where odd sides were pooled with rounding up. The positions of
    non-overlapping windows are unique, so that the scatter is deterministic (`torch.nn.functional.max_unpool2d` refuses to run
    when deterministic algorithms are demanded).
    """
    assert x.shape == switches.shape, f"values {tuple(x.shape)} and switches {tuple(switches.shape)} differ"
    out = x.new_zeros(*x.shape[:2], size[0] * size[1])
    return out.scatter(2, switches.flatten(2), x.flatten(2)).unflatten(2, size)


def crop_switches(
    switches: torch.Tensor, *, plane: tuple[int, int], height: int, width: int
) -> tuple[torch.Tensor, tuple[int, int]]:
    """The middle (height, width) of 2x2 pooling switches, renumbered for the middle (2*height, 2*width) of their `plane`.

    Returns:
        The switches (N, C, height, width) and the size of the plane that they now number.
    """
    top, left = centre_offset(switches.shape[-2], height), centre_offset(switches.shape[-1], width)
    switches = switches[..., top : top + height, left : left + width]
    rows, columns = switches // plane[1] - 2 * top, switches % plane[1] - 2 * left
    return rows * (2 * width) + columns, (2 * height, 2 * width)


class UpConv(nn.Module):
    """Twice the height and width, `in_channels` -> `out_channels`: (N, Cin, H, W) -> (N, Cout, 2H, 2W).

    `transposed` is a 2x2 convolution transposed with stride 2, and `resize_conv` a 3x3 convolution after nearest neighbours, which
    leaves no checkerboard (Odena, Dumoulin, Olah 2016: https://distill.pub/2016/deconv-checkerboard). The others have no weights of
    their own, so that a 1x1 convolution changes the channels first; max_unpool needs it, as its switches have `out_channels`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        if how == "transposed":
            self.conv = nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2)
        elif how == "resize_conv":
            self.conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        else:
            self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: torch.Tensor, switches: torch.Tensor | None = None, plane: tuple[int, int] | None = None) -> torch.Tensor:
        """`switches` and the `plane` that they number come from the pooling of this level; only max_unpool reads them."""
        if self.how == "resize_conv":
            return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = self.conv(x)
        if self.how == "nearest":
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        if self.how == "bilinear":
            return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        if self.how == "bed_of_nails":
            return bed_of_nails(x)
        if self.how == "max_unpool":
            assert switches is not None and plane is not None
            switches, size = crop_switches(switches, plane=plane, height=x.shape[-2], width=x.shape[-1])
            return max_unpool(x, switches, size=size)
        return x


def bilinear_kernel(factor: int) -> torch.Tensor:
    """The (2 * factor, 2 * factor) float32 filter with which a transposed convolution of stride `factor` interpolates linearly.

    For factor 2 each axis is (0.25, 0.75, 0.75, 0.25). `factor` is even.
    """
    assert factor % 2 == 0, factor
    distance = (torch.arange(2 * factor) - (factor - 0.5)).abs()
    row = 1 - distance / factor
    return torch.outer(row, row)


class FixedBilinear(nn.ConvTranspose2d):
    """Bilinear upsampling by a transposed convolution that does not train: (N, K, h, w) -> (N, K, (h+1)*factor, (w+1)*factor).

    Its weight is a full (K, K, k, k) parameter with zeros off the diagonal, as in the released FCN, so that counts agree. Nothing
    is cropped: the first `factor / 2` pixels, and as many at the end, reach beyond the outermost samples.
    """

    def __init__(self, channels: int, *, factor: int) -> None:
        super().__init__(channels, channels, 2 * factor, stride=factor, bias=False)
        self.weight.requires_grad_(False)

    def reset_parameters(self) -> None:
        """Write the bilinear filter; `nn.ConvTranspose2d` calls this at the end of its construction."""
        with torch.no_grad():
            self.weight.zero_()
            index = torch.arange(self.in_channels, device=self.weight.device)
            self.weight[index, index] = bilinear_kernel(self.stride[0]).to(self.weight)
