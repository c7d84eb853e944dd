"""Crop arithmetic of networks whose unpadded convolutions, or oversized decoders, give maps of unequal sizes."""

import torch


def centre_offset(larger: int, smaller: int) -> int:
    """Pixels to drop before the window of `smaller` in the middle of `larger`; an odd rest is dropped at the end."""
    assert larger >= smaller, f"cannot cut {smaller} out of {larger}"
    return (larger - smaller) // 2


def crop(x: torch.Tensor, *, top: int, left: int, height: int, width: int) -> torch.Tensor:
    """The window of (height, width) at (top, left) of x (N, C, H, W), as a view."""
    assert top + height <= x.shape[-2] and left + width <= x.shape[-1], (tuple(x.shape), top, left, height, width)
    return x[..., top : top + height, left : left + width]


def centre_crop(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The middle (height, width) of x (N, C, H, W), as a view."""
    top, left = centre_offset(x.shape[-2], height), centre_offset(x.shape[-1], width)
    return crop(x, top=top, left=left, height=height, width=width)
