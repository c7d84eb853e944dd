"""Backward passes of a small region's score, without multiplying the zeros around it.

A region's score depends on its surroundings only as far as convolutions reach, so on its way back the gradient is zero over most
of the image; a convolution's own backward computes those zeros one by one. Convolutions that run inside `LocalBackward()` are
differentiated on the box that holds their nonzero gradients. The result is the same but for rounding; where the gradient is
everywhere (a network that pools over the image) nothing is gained and nothing lost. On a U-Net a map becomes several times cheaper.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

WORTH_IT = 0.5
"""Boxes of more than this share of the whole are not cut out."""
Span = tuple[int, int]
"""First and last + 1."""


class LocalBackward(TorchFunctionMode):
    """In its context, 2-d convolutions whose weights want no gradient remember to be differentiated locally, also outside it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        if func is torch.conv2d:
            return _conv2d(*args, **options)
        if func is torch.conv_transpose2d:
            return _conv_transpose2d(*args, **options)
        return func(*args, **options)


def _conv2d(input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, dilation=1, groups=1) -> Tensor:  # type: ignore[no-untyped-def]
    if isinstance(padding, str) or not _frozen(input, weight, bias):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    return _local(input, weight, bias, _two(stride), _two(padding), _two(dilation), False, [0, 0], groups)


def _conv_transpose2d(  # type: ignore[no-untyped-def]
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
) -> Tensor:
    if not _frozen(input, weight, bias):
        return torch.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)
    return _local(input, weight, bias, _two(stride), _two(padding), _two(dilation), True, _two(output_padding), groups)


def _frozen(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    wanted = weight.requires_grad or (bias is not None and bias.requires_grad)
    return x.ndim == 4 and x.requires_grad and torch.is_grad_enabled() and not wanted


def _two(value: int | Sequence[int]) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def _local(*arguments: Any) -> Tensor:
    result: Tensor = _Convolution.apply(*arguments)
    return result


class _Convolution(torch.autograd.Function):
    """A convolution as torch computes it, whose backward is `input_gradient`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.shape, ctx.geometry = tuple(x.shape), geometry
        return torch.convolution(x, weight, bias, *geometry)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        stride, padding, dilation, transposed, output_padding, groups = ctx.geometry
        gradient = input_gradient(
            gradients[0],
            ctx.shape,
            weight,
            stride=stride,
            padding=padding,
            dilation=dilation,
            transposed=transposed,
            output_padding=output_padding,
            groups=groups,
        )
        return gradient, None, None, *(None for _ in ctx.geometry)


def input_gradient(
    gradient: Tensor,
    shape: Sequence[int],
    weight: Tensor,
    *,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """dy/dx of `shape` (N, C, h, w) of a 2-d convolution, from dy/d(its output) (N, C', H, W)."""

    def backward(part: Tensor, size: Sequence[int], padding: Sequence[int], output_padding: Sequence[int]) -> Tensor:
        x = part.new_empty((*shape[:2], *size))
        found: Tensor = torch.ops.aten.convolution_backward.default(
            part, x, weight, None, stride, padding, dilation, transposed, output_padding, groups, [True, False, False]
        )[0]
        return found

    box = nonzero_box(gradient)
    result = gradient.new_zeros(tuple(shape))
    if box is None:
        return result
    if (box[0][1] - box[0][0]) * (box[1][1] - box[1][0]) > WORTH_IT * gradient.shape[-2] * gradient.shape[-1]:
        return backward(gradient, shape[2:], padding, output_padding)
    reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[-2:], strict=True)]
    sides = list(zip(box, stride, padding, reach, shape[2:], strict=True))
    if transposed:
        # Cell i of the input writes to i * stride - padding + 0..reach of the output.
        cells = [(max(-((r - lo - p) // s), 0), min((hi - 1 + p) // s + 1, side)) for (lo, hi), s, p, r, side in sides]
        taken = [(a * s - p, (b - 1) * s - p + r + 1) for (a, b), (_, s, p, r, _) in zip(cells, sides, strict=True)]
    else:
        # Cell o of the output reads o * stride - padding + 0..reach of the input.
        cells = [(lo * s - p, (hi - 1) * s - p + r + 1) for (lo, hi), s, p, r, _ in sides]
        taken = list(box)
    size = [b - a for a, b in cells]
    if min(size) <= 0:
        return result
    inner = backward(_cut(gradient, taken), size, [0, 0], [0, 0])
    into = [(max(a, 0), min(b, side)) for (a, b), side in zip(cells, shape[2:], strict=True)]
    part = [slice(i - a, j - a) for (i, j), (a, _) in zip(into, cells, strict=True)]
    result[:, :, into[0][0] : into[0][1], into[1][0] : into[1][1]] = inner[:, :, part[0], part[1]]
    return result


def nonzero_box(gradient: Tensor) -> tuple[Span, Span] | None:
    """The rows and the columns of (N, C, H, W) that hold anything but zeros; None if there are only zeros."""
    there = gradient.abs().sum(dim=(0, 1)) != 0
    spans = []
    for dim in (1, 0):
        at = there.any(dim=dim).nonzero()
        if not len(at):
            return None
        spans.append((int(at[0]), int(at[-1]) + 1))
    return spans[0], spans[1]


def _cut(values: Tensor, spans: Sequence[Span]) -> Tensor:
    """The box of `spans` (rows, columns) of (N, C, H, W), with zeros where it reaches beyond."""
    within = [(max(a, 0), min(b, side)) for (a, b), side in zip(spans, values.shape[-2:], strict=True)]
    part = values[:, :, within[0][0] : within[0][1], within[1][0] : within[1][1]]
    if within == list(spans):
        return part
    around = [v for (a, b), (i, j) in zip(reversed(spans), reversed(within), strict=True) for v in (i - a, b - j)]
    return torch.nn.functional.pad(part, around)
